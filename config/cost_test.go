package config

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
)

// TestCostGrowsAsTheFileDoes: a file twice as long takes no more than 2.5 times as much memory in
// all, whatever is in it. What is quadratic copies, or makes, quadratically much. What aliases repeat
// grows faster, up to maxNodes and maxPutIn.
func TestCostGrowsAsTheFileDoes(t *testing.T) {
	repeated := func(head, part, tail string) func(int) string {
		return func(n int) string { return head + strings.Repeat(part, n/len(part)) + tail }
	}
	numbered := func(head, part, tail string) func(int) string { // part has one %d, or several of the same
		return func(n int) string {
			var b strings.Builder
			b.WriteString(head)
			for i := 0; b.Len() < n; i++ {
				b.WriteString(strings.ReplaceAll(part, "%d", fmt.Sprint(i)))
			}
			return b.String() + tail
		}
	}
	both := func(a, b func(int) string) func(int) string {
		return func(n int) string { return a(n/2) + b(n/2) }
	}
	repeatedByAliases := map[string]func(int) string{
		"aliases of a long value":   both(repeated("listen: &a \"", "x", "\"\n"), repeated("paths: [", "*a,", "]\n")),
		"aliases of many variables": both(repeated("listen: &a \"", "${TOKEN}", "\"\n"), repeated("paths: [", "*a,", "]\n")),
		"aliases of a long list":    both(repeated("paths: &a [", "x,", "]\n"), numbered("models:\n", "  m%d: {fallbacks: *a}\n", "")),
		"merges of a large mapping": both(numbered("paths: &a {", "x%d: 1,", "}\n"), numbered("models:\n", "  m%d: {<<: *a}\n", "")),
	}
	size := 32 << 10
	if upstreamtest.RaceDetector {
		size = 4 << 10
	}
	for name, text := range repeatedByAliases {
		if allocated, findings := cost(t, text(size), 1); allocated > 512<<20 || findings > 32<<10 {
			t.Errorf("%s: %d bytes, and %d of findings", name, allocated, findings)
		}
	}
	for name, text := range map[string]func(int) string{
		"one name over and over":    repeated("", "k: 1\n", ""),
		"unknown names":             numbered("", "k%d: 1\n", ""),
		"names with comments":       repeated("", "#c\nk: 1\n", ""),
		"names with question marks": repeated("", "? a\n: b\n", ""),
		"models":                    numbered("models:\n", "  m%d: {targets: [{upstream: up}]}\n", ""),
		"models in one line":        numbered("models: {", "m%d: {},", "}"),
		"targets":                   numbered("models: {m: {targets: [", "{upstream: up, model: m%d},", "]}}"),
		"one target over and over":  repeated("models: {m: {targets: [", "{upstream: up},", "]}}"),
		"fallbacks":                 repeated("models: {m: {fallbacks: [", "m,", "]}}"),
		"a chain of fallbacks":      numbered("models:\n", "  m%d: {fallbacks: [m1%d]}\n", ""),
		"fallbacks in circles":      numbered("models:\n", "  m%d: {fallbacks: [m0%d, m0]}\n", ""),
		"a long circle":             numbered("models:\n", "  m1%d: {fallbacks: [m%d, m0]}\n", ""),
		"upstreams without a use":   both(numbered("upstreams:\n", "  u%d: {base_url: \"http://a/v1\"}\n", ""), numbered("models:\n", "  m%d: {targets: [{upstream: x}]}\n", "")),
		"a list":                    repeated("paths:\n", "- a\n", ""),
		"lists in a list":           repeated("paths:\n", "- - a\n", ""),
		"brackets":                  repeated("paths: ", "[", ""),
		"braces":                    repeated("paths: ", "{a: ", ""),
		"dashes":                    repeated("paths:\n", "- ", ""),
		"question marks":            repeated("", "? ", ""),
		"colons":                    repeated("", ": ", ""),
		"colons in quotes":          repeated("listen: \"", ": ", "\""),
		"deeper and deeper":         func(n int) string { return deeper(n) },
		"variables":                 repeated("listen: \"", "${TOKEN}", "\""),
		"variables without an end":  repeated("listen: \"", "${", "\""),
		"variables without quotes":  repeated("paths: [", "${X},", "]"),
		"aliases without an anchor": repeated("paths: [", "*x,", "]"),
		"anchors":                   numbered("", "k%d: &a%d 1\n", ""),
		"aliases":                   repeated("listen: &a x\npaths: [", "*a,", "]"),
		"merges":                    repeated("a: &a {x: 1}\nupstreams:\n", "  <<: *a\n", ""),
		"a long name above much":    both(repeated("models: {", "a", ": {targets: ["), repeated("", "{a: b},", "]}}")),
		"a name of dots above much": both(repeated("models: {", ".", ": {targets: ["), repeated("", "{a: b},", "]}}")),
		"documents":                 repeated("", "---\na: 1\n", ""),
		"empty documents":           repeated("", "---\n", ""),
		"a long value":              repeated("listen: ", "a", ""),
		"a value over many lines":   repeated("listen: a\n", "  b\n", ""),
		"a literal":                 repeated("listen: |\n", "  b\n", ""),
		"escapes":                   repeated("listen: \"", "\\n", "\""),
		"directives":                repeated("", "%a\n", ""),
		"tags":                      repeated("paths: [", "!!str a,", "]"),
	} {
		t.Run(name, func(t *testing.T) {
			short, findings := cost(t, text(4<<10), 3)
			long, more := cost(t, text(8<<10), 3)
			if float64(long) > 2.5*float64(short)+64<<10 {
				t.Errorf("%d bytes for a short file, %d for one twice as long", short, long)
			}
			if findings > 32<<10 || more > 32<<10 {
				t.Errorf("the findings have %d and %d bytes", findings, more)
			}
		})
	}
}

// deeper is a mapping in a mapping in a mapping.
func deeper(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// cost is how many bytes reading text allocates, and how many its findings have. What the process
// allocates beside it only adds, so the least of all runs counts. The scanner keeps its buffers in
// a pool; two collections empty it, so that no run finds those of another.
func cost(t *testing.T, text string, runs int) (allocated uint64, findings int) {
	allocated = math.MaxUint64
	for range runs {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&before)
		_, _, err := parse(t.Context(), "config.yaml", []byte(text), getenv)
		runtime.ReadMemStats(&after)
		if err != nil {
			findings = len(err.Error())
		}
		allocated = min(allocated, after.TotalAlloc-before.TotalAlloc)
	}
	return allocated, findings
}

// TestManyFindings: all are counted, and the first hundred are shown.
func TestManyFindings(t *testing.T) {
	_, _, err := parse(t.Context(), "config.yaml", []byte(minimal+strings.Repeat("paths: 1\n", 5000)), getenv)
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != shownFindings+1 || lines[shownFindings] != "config.yaml: and 4900 more" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}

// TestLongLine: a line may have any number of pairs.
func TestLongLine(t *testing.T) {
	var targets strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&targets, "{upstream: up, model: \"m%d: : :\"}, ", i)
	}
	cfg := mustParse(t, strings.Replace(minimal, "{upstream: up}", targets.String(), 1))
	if n := len(cfg.Models["m"].Targets); n != 1000 {
		t.Errorf("%d targets", n)
	}
}
