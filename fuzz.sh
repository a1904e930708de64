#!/usr/bin/env bash
# Runs every fuzz target of the tree for the time given (default 30s), one after
# the other; ends with an error when one finds something or when there are none.
set -euo pipefail
cd "$(dirname "$0")"
time=${1:-30s}
count=0
while IFS=: read -r file name; do
  echo "== $(dirname "$file") $name"
  # Inputs are whole dumps: by default go test spends a minute on making each interesting one smaller, and tries nothing else.
  go -C "$(dirname "$file")" test -run='^$' -fuzz="^${name}\$" -fuzztime="$time" -fuzzminimizetime=10x .
  count=$((count + 1))
done < <(grep -RhoHE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' . | sed -E 's#^\./##; s#:func #:#' | sort)
[ "$count" -gt 0 ] || { echo "fuzz.sh: no fuzz target found" >&2; exit 1; }
echo "$count fuzz targets passed"
