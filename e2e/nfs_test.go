package e2e

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/e2e/lab"
)

// nfsServer starts Ganesha.
func nfsServer(tb testing.TB, exports ...lab.GaneshaExport) *lab.Ganesha {
	tb.Helper()
	g, err := lab.StartGanesha(tb.Context(), tb.TempDir(), exports...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(g.Stop)
	return g
}

// nfsTarget is a directory on a server that is reached at an address.
func nfsTarget(tb testing.TB, g *lab.Ganesha, addr, dir string) string {
	tb.Helper()
	_, mount, err := net.SplitHostPort(g.MountAddr)
	if err != nil {
		tb.Fatal(err)
	}
	return "nfs://" + addr + dir + "?mountport=" + mount
}

// TestNFSSend sends a dump to Ganesha: through the portmapper from a privileged port, by a sender that is there before both of them,
// and with ports. Page by page it is as over TLS.
func TestNFSSend(t *testing.T) {
	t.Parallel()
	elf := failoverELF(t)
	want := judgesPages(t, filepath.Join(judgesServe(t).send(t, elf, "1"), "vmcore"))
	export := t.TempDir()
	g, err := lab.NewGanesha(t.Context(), t.TempDir(), lab.GaneshaExport{Path: export})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	early := filepath.Join(export, "early")
	nfsEarly(t, g, "send", "--level", "1", "--to", "nfs://127.0.0.1"+early, elf)
	sftpCheck(t, early, want)
	dir := filepath.Join(export, "crash", "here")
	args := []string{"send", "--level", "1", "--to", nfsTarget(t, g, g.Addr, dir), elf}
	_, said := judgesRun(t, 0, "corehaul-send", args...)
	t.Log(said)
	sftpCheck(t, dir, want)
	if out, _ := judgesRun(t, 0, "corehaul-send", args...); !strings.Contains(out, "dump complete already") {
		t.Errorf("sent once more, it says %q", out)
	}
}

// nfsEarly starts a sender on the server's machine, then the portmapper once the sender has missed it, and then the server.
func nfsEarly(t *testing.T, g *lab.Ganesha, args ...string) {
	t.Helper()
	p := serveSendBy(t, nil, g.Enter(append([]string{judgesBin + "corehaul-send"}, args...)...)...)
	for _, step := range []struct {
		misses string
		start  func(context.Context) error
	}{
		{"the server has no portmapper, or it is still starting", g.StartPortmapper},
		{"the server's portmapper knows no MOUNT version 3", g.Start},
	} {
		serveWait(t, step.misses, func() bool {
			select {
			case <-p.closed:
				t.Fatalf("the sender did not wait for the server:\n%s", p.said())
			default:
			}
			return strings.Contains(p.said(), step.misses)
		})
		if err := step.start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if code, _ := p.wait(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.said())
	}
	t.Log(p.said())
}

// nfsDurable is what a sender says of the pages that are durable.
var nfsDurable = regexp.MustCompile(`sending: (\d+) of \d+ pages`)

// TestNFSKill kills the sender, and the server, in the middle of one dump, and stops the server for half a minute: each when more pages
// are durable than at the step before, however many they are.
func TestNFSKill(t *testing.T) {
	t.Parallel() // it waits more than it computes
	elf := failoverELF(t)
	peace := filepath.Join(judgesServe(t).send(t, elf, "1", "--encoding", "snappy"), "vmcore")
	export := t.TempDir()
	g := nfsServer(t, lab.GaneshaExport{Path: export})
	l := newLine(t, g.Addr)
	l.slow(t, killRate)
	dir := filepath.Join(export, "store")
	args := []string{"--to", nfsTarget(t, g, l.Listen, dir), "--level", "1", "--encoding", "snappy", "--progress", "100ms", elf}
	p := serveSend(t, nil, args...)
	steps := []func(){
		func() { p.kill(t); p = serveSend(t, nil, args...) },
		func() {
			g.Kill()
			if err := g.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		func() { nfsHang(t, g) },
	}
	durable := 0
	for i, step := range steps {
		serveWait(t, "more of the dump", func() bool {
			select {
			case <-p.closed:
				t.Fatalf("the sender ended before step %d:\n%s", i+1, p.said())
			default:
			}
			list := nfsDurable.FindAllStringSubmatch(p.said(), -1)
			if len(list) == 0 {
				return false
			}
			pages, err := strconv.Atoi(list[len(list)-1][1])
			if err != nil || pages <= durable {
				return false
			}
			durable = pages
			return true
		})
		step()
	}
	if code, _ := p.wait(t); code != 0 {
		t.Fatalf("the last sender: exit code %d\n%s", code, p.said())
	}
	if strings.Contains(p.said(), " to send, the receiver has 0 of them") {
		t.Errorf("after the kill it began at nothing:\n%s", p.said())
	}
	sftpCheck(t, dir, judgesPages(t, peace))
}

// nfsHang stops the server for half a minute.
func nfsHang(t *testing.T, g *lab.Ganesha) {
	t.Helper()
	if err := g.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(30 * time.Second) // this is what is tested: a server that hangs for so long
	if err := g.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// TestNFSRefusals: what a real server refuses is one line, with what to do, and the dump goes to the next target.
func TestNFSRefusals(t *testing.T) {
	t.Parallel()
	elf := failoverELF(t)
	const mib = 1 << 20
	readOnly, squashed, full := t.TempDir(), t.TempDir(), fulldiskMount(t, 14*mib)
	g := nfsServer(t, lab.GaneshaExport{Path: readOnly, ReadOnly: true}, lab.GaneshaExport{Path: squashed, Squash: true}, lab.GaneshaExport{Path: full})
	for name, tc := range map[string]struct{ dir, has string }{
		"read-only":    {readOnly + "/store", "read-only file system (NFS3ERR_ROFS): export the directory for writing (rw)"},
		"root squash":  {squashed + "/store", "permission denied (NFS3ERR_ACCES): let the user write there"},
		"wrong export": {"/no/such/export", "the server exports neither /no/such/export nor a directory above it"},
		"full":         {full + "/store", "no space left on device"},
	} {
		second := judgesServe(t)
		_, said := judgesRun(t, 0, "corehaul-send", "send", "--to", nfsTarget(t, g, g.Addr, tc.dir), "--to", second.target, "--identity", second.identity,
			"--encoding", "snappy", elf)
		lines := 0
		for line := range strings.Lines(said) {
			if strings.Contains(line, tc.has) && strings.Contains(line, tc.dir) {
				lines++
			}
		}
		if lines != 1 {
			t.Errorf("%s: %d lines have %q, want one:\n%s", name, lines, tc.has, said)
		}
		if m := second.one(t).Manifest; m.State != "complete" {
			t.Errorf("%s: on the next target it is %s", name, m.State)
		}
		second.end(t)
	}
	nfsMakeRoom(t, g, elf, full)
}

// nfsMakeRoom makes room on the full disk: what was acknowledged there is there, and the dump goes on.
func nfsMakeRoom(t *testing.T, g *lab.Ganesha, elf, full string) {
	t.Helper()
	if err := unix.Mount("tmpfs", full, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", 200<<20)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(full, "store")
	_, said := judgesRun(t, 0, "corehaul-send", "send", "--to", nfsTarget(t, g, g.Addr, dir), "--encoding", "snappy", elf)
	if strings.Contains(said, " to send, the receiver has 0 of them") {
		t.Errorf("it began at nothing:\n%s", said)
	}
	want := judgesPages(t, filepath.Join(judgesServe(t).send(t, elf, "31", "--encoding", "snappy"), "vmcore"))
	sftpCheck(t, dir, want)
}
