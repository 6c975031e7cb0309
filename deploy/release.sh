#!/bin/sh
# Builds dist/sluice-VERSION-linux-{amd64,arm64}.tar.gz and SHA256SUMS. From the same commit and the same Go
# they are the same bytes, wherever they are built. "make release" calls it.
set -eu
cd "$(dirname "$0")/.."

version=${VERSION:-$(git describe --tags --always --dirty)}
# The time of the commit, for the files in the archive.
when=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
go=${GO:-go}

rm -rf dist
mkdir dist
umask 022
for arch in ${ARCHES:-amd64 arm64}; do
	name=sluice-$version-linux-$arch
	mkdir "dist/$name"
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch GOFLAGS= $go build -trimpath -buildvcs=false \
		-ldflags "-s -w -buildid= -X main.release=$version" -o "dist/$name/sluice" .
	cp -r LICENSE README.md CHANGELOG.md config.yaml config.reference.yaml docs deploy "dist/$name/"
	GOFLAGS= $go run -C deploy/manual . "$PWD/dist/$name" "$version" "$(date -u -d "@$when" +%F)"
	# What others wrote and is in the binary, with its licences.
	{
		cat admin/page/uPlot.LICENSE
		GOOS=linux GOARCH=$arch $go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' . |
			sort -u | while read -r path release dir; do
			printf '\n\n======== %s %s\n\n' "$path" "$release"
			texts=$(find "$dir" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'notice*' -o -iname 'copying*' \) | sort)
			[ -n "$texts" ] || { echo "$path has no licence file" >&2; exit 1; }
			echo "$texts" | while read -r file; do cat "$file"; done
		done
	} >"dist/$name/THIRD-PARTY-LICENSES"
	tar -C dist --sort=name --mtime="@$when" --owner=0 --group=0 --numeric-owner --mode='u+rwX,go+rX,go-w' -cf - "$name" |
		gzip -n >"dist/$name.tar.gz"
	rm -r "dist/${name:?}"
done
(cd dist && sha256sum -- *.tar.gz >SHA256SUMS)
cat dist/SHA256SUMS
