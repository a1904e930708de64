package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sftpFullLine is what a sender says of a full disk: which target, what there, and why.
var sftpFullLine = regexp.MustCompile(`(?m)^corehaul-send: ssh://root@\S+: no-space: .*the disk is full: (.*)$`)

// sftpFullSaid checks that a sender told of a full disk below dir.
func sftpFullSaid(t *testing.T, said, dir string) {
	t.Helper()
	m := sftpFullLine.FindStringSubmatch(said)
	if m == nil || strings.Count(m[1], "no space left on device") != 1 || !strings.Contains(m[1], dir+"/") {
		t.Errorf("it does not say once what below %s had no room:\n%s", dir, said)
	}
}

// TestSFTPFullDisk sends to SFTP servers whose disks are full before the log, before the first page and in the midst of
// them. The dump goes to the next target; what was acknowledged is there once somebody makes room.
func TestSFTPFullDisk(t *testing.T) {
	elf := failoverELF(t)
	server := sshTargetServer(t)
	const kib, mib = 1 << 10, 1 << 20
	states := map[string]int{}
	for _, size := range []int64{16 * kib, 32 * kib, 256 * kib, 14 * mib, 18 * mib, 22 * mib, 60 * mib} {
		disk := fulldiskMount(t, size)
		dir := filepath.Join(disk, "store")
		second := judgesServe(t)
		args := append(sftpArgs(t, server, dir), "--to", second.target, "--identity", second.identity, "--encoding", "snappy", elf)
		_, said := judgesRun(t, 0, "corehaul-send", append([]string{"send"}, args...)...)
		whole := size == 60*mib
		if !whole {
			sftpFullSaid(t, said, disk)
			if m := second.one(t).Manifest; m.State != "complete" {
				t.Errorf("%d KiB: on the next target it is %s", size/kib, m.State)
			}
		}
		if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", 200*mib)); err != nil {
			t.Fatal(err)
		}
		s := judgesNew(t, "--resume-grace", "1s") // seals what nobody finished
		s.data = dir
		s.start(t)
		state, pages := s.fulldiskLeft(t, elf)
		states[state]++
		t.Logf("%d KiB: %s, %d pages on the full disk", size/kib, state, pages)
		if size > 10*mib && !whole {
			fi, err := os.Stat(filepath.Join(s.list(t)[0].Path, "vmcore"))
			if err != nil || fi.Size() < size-2*mib {
				t.Errorf("%d KiB: the disk was not used up: %v, %v", size/kib, fi, err)
			}
		}
		if (state == "complete") != whole {
			t.Errorf("%d KiB: it is %s", size/kib, state)
		}
		s.end(t)
		second.end(t)
	}
	if states["partial"] < 2 || states["log-only"] < 1 {
		t.Errorf("ends were %v: not every kind of end was seen", states)
	}
}

// TestSFTPFullDiskWaits makes room on the full disk of an SFTP server: the sender, which has no other target, goes on where it was.
func TestSFTPFullDiskWaits(t *testing.T) {
	t.Parallel() // it waits more than it computes
	elf := failoverELF(t)
	want := judgesPages(t, filepath.Join(judgesServe(t).send(t, elf, "31", "--encoding", "snappy"), "vmcore"))
	const mib = 1 << 20
	disk := fulldiskMount(t, 200*mib)
	room := fulldiskBallast(t, disk, 18*mib)
	dir := filepath.Join(disk, "store")
	p := serveSend(t, nil, append(sftpArgs(t, sshTargetServer(t), dir), "--patience", "10m", "--encoding", "snappy", elf)...)
	serveWait(t, "the disk to be full", func() bool { return strings.Contains(p.said(), "no-space") })
	room()
	if code, _ := p.wait(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.said())
	}
	sftpFullSaid(t, p.said(), disk)
	if n := strings.Count(p.said(), " to send, the receiver has 0 of them"); n != 1 {
		t.Errorf("it began at nothing %d times, want once:\n%s", n, p.said())
	}
	sftpCheck(t, dir, want)
}
