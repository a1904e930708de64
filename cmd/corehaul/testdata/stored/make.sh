#!/usr/bin/env bash
# Makes data.tar.zst and ls.json with the programs of a commit: make.sh COMMIT SAMPLE.flat. See README.md.
set -euo pipefail
commit=$1 sample=$(realpath "$2") here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
git -C "$here" worktree add -q --detach "$work/tree" "$commit"
server=
trap '[ -z "$server" ] || kill -9 "$server"; git -C "$here" worktree remove -f "$work/tree"; rm -r "$work"' EXIT
(cd "$work/tree" && CGO_ENABLED=0 go build -o "$work" ./cmd/corehaul ./cmd/corehaul-send && go build -o "$work/source" "$here/source.go")
cd "$work"
export COREHAUL_DATA=data COREHAUL_IDENTITY COREHAUL_PROGRESS=0s

hosts=(web-1 web-2 web-3 web-4 web-5)
./corehaul ca init --ca ca
mkdir sources
for host in "${hosts[@]}"; do
	./corehaul ca issue "$host" --ca ca --output "$host.pem"
	./source "sources/$host" "$host"
done
cp "$sample" sources/stock
for host in web-6 web-7; do
	ssh-keygen -q -t ed25519 -N '' -C '' -f "$host.key"
	echo "$(cat "$host.key.pub") $host" >>authorized_keys
done

# serve GRACE: starts the receiver.
serve() {
	./corehaul serve --tls 127.0.0.1:7420 --ssh 127.0.0.1:7422 --authorized-keys authorized_keys --ca ca \
		--reserve 0 --commit-interval 20ms --resume-grace "$1" >ready 2>>serve.log &
	server=$!
	until grep -q ready ready; do sleep 0.1; done
}
killServer() { kill -9 "$server" && wait "$server" || server=; }

# send HOST FLAG...: sends the dump of a host.
send() {
	local host=$1 && shift
	COREHAUL_IDENTITY=$host.pem ./corehaul-send send --patience 1s "$@" "sources/$host"
}

# sendCut HOST BYTES FLAG...: sends no more than the first bytes of it, over a proxy, and waits until what came of it is durable.
sendCut() {
	local host=$1 bytes=$2 && shift 2
	python3 - "$bytes" <<'PYTHON' &
import socket, sys, threading
left = int(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 7430))
client, _ = listener.accept()
listener.close()
server = socket.create_connection(("127.0.0.1", 7420))
def answers():
    while b := server.recv(65536):
        client.sendall(b)
threading.Thread(target=answers, daemon=True).start()
while left and (b := client.recv(min(left, 65536))):
    server.sendall(b)
    left -= len(b)
threading.Event().wait(1)
PYTHON
	local proxy=$!
	until ss -ltn | grep -q 127.0.0.1:7430; do sleep 0.1; done
	send "$host" --to tls://127.0.0.1:7430 "$@" || true
	wait "$proxy"
}

# client HOST COMMAND: runs a command as a stock kdump client does.
client() {
	ssh -i "$1.key" -p 7422 -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR kdump@127.0.0.1 "$2"
}

# stock HOST [BYTES]: sends the sample as a client's dump; or only its first bytes and, when it is time for the receiver to note what has come,
# some more, and holds the line.
stock() {
	local dir=/var/crash/127.0.0.1-2023-11-14-22:13:20 rest=1000
	client "$1" "mkdir -p $dir" </dev/null
	if [ $# = 1 ]; then
		client "$1" "dd of=$dir/vmcore" <sources/stock
	else
		{ head -c "$2" sources/stock && sleep 7 && tail -c "+$(($2 + 1))" sources/stock | head -c $rest && sleep 20; } | client "$1" "dd of=$dir/vmcore"
	fi
}

size=$(stat -c %s sources/stock)
serve 3s
send web-1 --to tls://127.0.0.1:7420
sendCut web-2 260000 --level 0
send web-4 --to tls://127.0.0.1:7420 --log-only || true
stock web-6
until ./corehaul ls --state partial | grep -q web-2 && ./corehaul ls --state complete | grep -q web-6; do sleep 0.5; done
killServer
idOf() { ./corehaul ls --host "$1" | awk 'END { print $1 }'; }
./corehaul pin --reason "an example" "$(idOf web-6)"
./corehaul verify "$(idOf web-1)"

serve 1h
sendCut web-3 260000 --level 0
sendCut web-5 200000
sendCut web-5 120000 --level 0
stock web-7 $((size - 1300)) &
sleep 12
killServer
wait %% || true
./corehaul ls
./corehaul ls --json | sed "s,\"$PWD/,\"," >"$here/ls.json"
tar --sort=name --owner=0 --group=0 --numeric-owner --exclude='*.sock' --exclude='ssh_host_*' -c data sources | zstd -q -19 --long=27 -f -o "$here/data.tar.zst"
