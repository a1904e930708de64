package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// failoverRate is the speed of a line in kB/s over which a dump takes long enough to be interrupted.
const failoverRate = 4_000

// failoverELF is the dump of a small machine.
func failoverELF(t *testing.T) string {
	t.Helper()
	c, err := lab.CaptureELF(t.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", Kexec: "c"})
	if err != nil {
		t.Fatal(err)
	}
	return c.ELF
}

// TestFailover kills the first of two receivers for good in the middle of a dump. The dump goes to the
// second; what the first one has is sealed when it is started again.
func TestFailover(t *testing.T) {
	t.Parallel() // it waits more than it computes
	elf := failoverELF(t)
	want := judgesPages(t, filepath.Join(judgesServe(t).send(t, elf, "31"), "vmcore"))
	second := judgesServe(t)
	first := judgesNew(t, "--resume-grace", "1s")
	first.ca, first.identity = second.ca, second.identity // one identity is good for both
	first.start(t)
	slow := newLine(t, first.address(t))
	slow.slow(t, failoverRate)
	p := serveSend(t, nil, "--to", slow.target(), "--to", second.target, "--identity", second.identity, "--encoding", "snappy", elf)
	d := &killDump{store: first}
	const enough = 8 << 20
	serveWait(t, "the first pages", func() bool { return d.arrived(t) > enough })
	first.kill(t)
	if code, _ := p.wait(t); code != 0 {
		t.Fatalf("the sender: exit code %d\n%s", code, p.said())
	}
	two := second.one(t)
	if got := judgesPages(t, filepath.Join(two.Path, "vmcore")); two.Manifest.State != "complete" || got != want {
		t.Errorf("on the second: %s, %+v, want complete, %+v", two.Manifest.State, got, want)
	}
	judgesRun(t, 0, "corehaul", "verify", "--data", second.data, two.ID)

	first.start(t)
	serveWait(t, "the seal of the partial dump", func() bool { return first.one(t).Manifest.State == "partial" })
	one := first.one(t)
	judgesRun(t, 3, "corehaul", "verify", "--data", first.data, one.ID)
	got := judgesPages(t, filepath.Join(one.Path, "vmcore"))
	if one.ID != two.ID || got.Count == 0 || got.Count >= want.Count {
		t.Errorf("on the first: dump %s of %d pages, want %s of less than %d", one.ID, got.Count, two.ID, want.Count)
	}
	t.Logf("%d pages on the first, %d on the second; the sender said\n%s", got.Count, want.Count, p.said())
}

// TestLogFirst kills a sender for good as soon as it knows its log to be stored. The dump is listed with
// its panic line and no pages, and the log can be read, before and after the receiver gives the sender up.
func TestLogFirst(t *testing.T) {
	const rate = 100 // kB/s: the first pages take many seconds
	s := judgesServe(t, "--resume-grace", "15s")
	l := newLine(t, s.address(t))
	l.slow(t, rate)
	stored := make(chan struct{})
	p := serveSend(t, func(line string) {
		if strings.Contains(line, "log stored") {
			close(stored)
		}
	}, "--to", l.target(), "--identity", s.identity, "--encoding", "none", failoverELF(t))
	select {
	case <-stored:
	case <-time.After(5 * time.Minute):
		t.Fatalf("the log was not stored:\n%s", p.said())
	}
	p.kill(t)
	l.cut(t) // what was on the line is lost
	check := func(states ...string) {
		t.Helper()
		d := s.one(t)
		if m := d.Manifest; !slices.Contains(states, m.State) || !strings.Contains(m.PanicLine, capturePanic) || m.Pages.Present != 0 {
			t.Errorf("got a dump %s, %q, of %d pages; want %s, %q, none", m.State, m.PanicLine, m.Pages.Present, states, capturePanic)
		}
		log, _ := judgesRun(t, 0, "corehaul", "log", "--data", s.data, d.ID)
		if !strings.Contains(log, capturePanic) {
			t.Errorf("%s: the log, %d bytes, does not contain %q", d.Manifest.State, len(log), capturePanic)
		}
	}
	check("arriving")
	serveWait(t, "the seal", func() bool { return s.one(t).Manifest.State != "arriving" })
	check("log-only", "partial") // partial when its plan was there too
}

// TestIPv6 sends a dump over IPv6.
func TestIPv6(t *testing.T) {
	s := judgesServe(t, "--tls", "[::1]:0")
	if !strings.HasPrefix(s.target, "tls://[::1]:") {
		t.Fatalf("the receiver listens on %s", s.target)
	}
	dir := s.send(t, failoverELF(t), "31")
	judgesRun(t, 0, "corehaul", "verify", "--data", s.data, judgesReadManifest(t, dir).ID)
}
