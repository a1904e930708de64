#!/usr/bin/env bash
# Runs the unit tests again and again under the race detector, beside two busy loops, so that whoever
# waits for a time instead of an event is found out; ends with an error when a test fails.
#
# usage: stress.sh [COUNT [PACKAGE...]]
set -euo pipefail
cd "$(dirname "$0")"
count=${1:-20}
shift || true
if ! [[ $count =~ ^[1-9][0-9]*$ ]]; then
  echo "stress.sh: COUNT is '$count'; it has to be a number of rounds from 1 on. Usage: stress.sh [COUNT [PACKAGE...]]" >&2
  exit 2
fi
[ "$#" -gt 0 ] || set -- ./...
loops=()
trap 'kill "${loops[@]}" 2>/dev/null || true' EXIT
for _ in 1 2; do
  (while :; do :; done) &
  loops+=("$!")
done
# Each round is a process of its own: a test that needs a fresh one is not to be told apart from one that flakes.
for round in $(seq "$count"); do
  echo "== round $round of $count"
  # As RACE_FLAGS and GC of the Makefile, which says why.
  GOGC=400 CGO_ENABLED=1 go test -race -gcflags=modernc.org/sqlite/lib=-race=false -count=1 -timeout=60m "$@"
done
