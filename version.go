package main

import "runtime/debug"

// release is the version of a build that "make release" has made.
var release string

// version is the release's, or what Go knows of the commit that was built.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
