#!/usr/bin/env bash
# The main job, once, on a real panic: a virtual machine crashes, corehaul-send runs
# in its capture kernel, corehaul receives the dump. Run by `make demo`, which builds
# bin/ and installs QEMU first. What arrives is kept in $COREHAUL_DEMO (default
# /var/tmp/corehaul-demo); it goes on to the next run, so that dumps add up.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/bin:$PATH"
dir=$(realpath -m "${COREHAUL_DEMO:-/var/tmp/corehaul-demo}")
data=$dir/data
mkdir -p "$dir"
chmod 700 "$dir"

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf 'demo: %s\n' "$*" >&2
  exit 1
}

say "fetching a kernel (kept for the next time)"
# Two steps, so that a failure of the first is not taken for an answer.
kernel_line=$(go -C e2e run ./cmd/lab kernels 6.1)
read -r _ _ modules <<<"$kernel_line"

say "starting the receiver"
[ -d "$dir/ca" ] || corehaul ca init --ca "$dir/ca"
rm -f "$dir/demo-host.pem"
corehaul ca issue demo-host --ca "$dir/ca" --output "$dir/demo-host.pem"
corehaul serve --data "$data" --tls 127.0.0.1:0 --ca "$dir/ca" >"$dir/serve.out" 2>"$dir/serve.log" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  grep -q '^ready ' "$dir/serve.out" && break
  kill -0 $server 2>/dev/null || fail "the receiver ended: $(tail -1 "$dir/serve.log")"
  sleep 0.1
done
port=$(sed -n 's#^ready tls://.*:\([0-9]*\).*#\1#p' "$dir/serve.out")
[ -n "$port" ] || fail "the receiver is not ready: $(tail -1 "$dir/serve.log")"
cat "$dir/serve.out"

say "building the capture initramfs"
# QEMU's user network shows the host's loopback as 10.0.2.2.
cat >"$dir/capture.toml" <<END
to = ["tls://10.0.2.2:$port"]
identity = "$dir/demo-host.pem"
END
corehaul-send initrd --kernel-modules "$modules" --module virtio_net \
  --config "$dir/capture.toml" -o "$dir/capture.img"

say "booting a machine, which will panic"
touch "$dir/started"
go -C e2e run ./cmd/lab send -kernel 6.1 "$dir/capture.img" | tee "$dir/console.log" |
  grep --line-buffered -aE 'Kernel panic|corehaul-send:' || fail "no word of corehaul-send on the console, see $dir/console.log"
grep -aq 'corehaul-send: dump complete' "$dir/console.log" || fail "the dump did not complete, see $dir/console.log and $dir/serve.log"

vmcore=$(find "$data/dumps" -name vmcore -newer "$dir/started" | tail -1)
[ -n "$vmcore" ] || fail "no vmcore in $data/dumps"
id=$(basename "$(dirname "$vmcore")")
id=${id##*-}

say "what arrived"
corehaul verify --data "$data" "$id"
corehaul show --data "$data" "$id"
say "the end of the crashed kernel's log"
corehaul log --data "$data" "$id" | tail -20
say "what crashed and where, from the dump itself"
corehaul report --data "$data" "$id"
printf '\n%s\n' "$vmcore"
