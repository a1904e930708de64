#!/usr/bin/env bash
# Makes .deb and .rpm packages of both programs. Two builds of one commit give the same bytes.
#
# usage: packaging/build.sh DIR     (GOARCH=arm64 packaging/build.sh DIR for another machine)
set -euo pipefail
if [ "$#" -ne 1 ]; then
  echo "build.sh: name the directory for the packages. Usage: packaging/build.sh DIR" >&2
  exit 2
fi
mkdir -p "$1"
out=$(realpath "$1")
cd "$(dirname "$0")"
top=$(realpath ..)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
umask 022

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
MTIME=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
# Without a tag, versions sort by the time of the commit, before the first release.
if tag=$(git describe --tags --match 'v[0-9]*' 2>/dev/null); then
  VERSION=${tag#v} VERSION=${VERSION//-/+}
else
  VERSION=0~git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git rev-parse --short=12 HEAD)
fi
MAINTAINER=${MAINTAINER:-corehaul maintainers <corehaul@users.noreply.github.com>}
ARCH=$(go env GOARCH)
export VERSION MAINTAINER ARCH SOURCE_DATE_EPOCH

host_go() { GOOS='' GOARCH='' go "$@"; } # what runs here, whatever the packages are for

for name in corehaul corehaul-send; do
  flags="-s -w -X github.com/corehaul/corehaul/cmd/internal/cli.version=$VERSION"
  CGO_ENABLED=0 go -C "$top" build -trimpath -ldflags "$flags" -o "$WORK/$name" "./cmd/$name"
  mkdir "$WORK/$name-man" "$WORK/$name-doc"
  host_go -C "$top" run -tags manpages -ldflags "$flags" "./cmd/$name" "$WORK/$name-man"
  here=$name
  if [ "$(go env GOARCH)" != "$(go env GOHOSTARCH)" ]; then
    here=here-$name
    CGO_ENABLED=0 host_go -C "$top" build -trimpath -ldflags "$flags" -o "$WORK/$here" "./cmd/$name"
  fi
  for shell in bash zsh fish; do
    (cd "$WORK" && bash -c "exec -a $name ./$here completion $shell" >"$name.$shell")
  done
  cp copyright "$WORK/$name-doc/"
done
cp "$top"/README.md "$top"/docs/*.md "$WORK/corehaul-doc/"
cp "$top"/docs/machine.md "$top"/docs/kdump-admin.md corehaul-send.toml "$WORK/corehaul-send-doc/"
gzip -n9 "$WORK"/*-man/*
cat >"$WORK/changelog.yaml" <<END
- semver: $VERSION
  date: $MTIME
  packager: $MAINTAINER
  deb: {urgency: medium, distributions: [unstable]}
  changes:
    - note: All changes are in the history of the source.
END

ln -s "$top/packaging" "$top/contrib" "$WORK"
nfpm=$(host_go tool -n nfpm)
cd "$WORK"
# pages NAME FORMAT prints the documents and manual pages of a package as nfpm's list has them. rpm wants to know which files are that.
pages() {
  local type=
  [ "$2" != rpm ] || type='type: doc, '
  for file in "$1"-doc/*; do
    echo "  - {src: $file, dst: /usr/share/doc/$1/${file##*/}, packager: $2, ${type}file_info: {mode: 0644}}"
  done
  for file in "$1"-man/*; do
    echo "  - {src: $file, dst: /usr/share/man/man1/${file##*/}, packager: $2, ${type}file_info: {mode: 0644}}"
  done
}

for name in corehaul corehaul-send; do
  for format in deb rpm; do
    (cat packaging/$name.yaml && pages $name $format) >$name.yaml
    "$nfpm" package --config $name.yaml --packager $format --target "$out"
  done
done
