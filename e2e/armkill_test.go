package e2e

import (
	"testing"

	"github.com/corehaul/corehaul/sender/arm"
)

// killedAt is a shell function: the kernel kills corehaul-send at the first of some system calls that it makes (seccomp(2), SIGSYS).
const killedAt = `killed_at() {
	printf '[Service]\nType=oneshot\nExecStart=/usr/bin/corehaul-send %s\nSystemCallFilter=~%s\n' "$2" "$1" > /run/systemd/system/killed.service
	systemctl daemon-reload
	! systemctl start killed
	test "$(systemctl show -P ExecMainStatus killed)" = 31
	systemctl reset-failed killed
}
`

// What is loaded after a kill: the image of before, or another one. It does not count if none of ours is loaded.
const old, fresh, either = "the old image", "a new image", ""

// killedCases kill arm and disarm in each state that they leave behind, one after the other. Each begins with what the one before
// has left.
var killedCases = []struct {
	name, script, code string
	want               []arm.Code
	// loaded is the image that is loaded then.
	loaded string
}{
	{"arm, before it does anything", `killed_at flock arm`, "0", nil, old},
	{"arm, before it loads", `killed_at kexec_file_load arm
ls /run/corehaul-send/armed.json /run/corehaul-send/arming.json`, "0", nil, old},
	{"arm, while it loads", `corehaul-send arm & arm=$!
rm /run/corehaul-send/arming.json
until [ -e /run/corehaul-send/arming.json ]; do kill -0 $arm || break; sleep 0.1; done
kill -9 $arm || true
wait $arm || true`, "0", nil, either},
	{"arm, when all is written but it has not tidied up", `killed_at 'unlink unlinkat' arm
ls /run/corehaul-send/armed.json /run/corehaul-send/arming.json`, "0", nil, fresh},
	{"disarm, before it unloads", `killed_at kexec_file_load disarm`, "0", nil, old},
	{"disarm, when it has unloaded", `killed_at 'unlink unlinkat' disarm
ls /run/corehaul-send/armed.json`, "1", []arm.Code{arm.Unloaded}, old},
	{"arm without an old image, before it loads", `killed_at kexec_file_load arm`, "1", []arm.Code{arm.Unloaded}, old},
	{"arm without an old image, when it has loaded and not yet looked where", `killed_at pread64 arm`, "0", nil, fresh},
	{"arm after that, before it loads", `killed_at kexec_file_load arm`, "0", nil, old},
	{"disarm after all that leaves nothing", `corehaul-send disarm
grep 0 /sys/kernel/kexec_crash_loaded
fails ls /run/corehaul-send`, "1", []arm.Code{arm.Unloaded}, old},
	{"and arm works", `corehaul-send arm`, "0", nil, fresh},
}

// checkKilled kills arm and disarm. The old image is loaded then or the new one, and status knows which: it says so, and the machine is
// ready with both.
func (h *recipeHosts) checkKilled(t *testing.T) {
	t.Helper()
	id := ""
	for i, tc := range killedCases {
		s := h.checkWrong(t, "web-17", wrongCase{tc.name, killedAt + tc.script + "\nstatus_of --offline", tc.code, tc.want})
		if s.Loaded == nil {
			continue
		}
		got := old
		if s.Loaded.ID != id {
			got = fresh
		}
		if i > 0 && tc.loaded != either && got != tc.loaded {
			t.Errorf("%s: %s is loaded, want %s", tc.name, got, tc.loaded)
		}
		id = s.Loaded.ID
	}
}
