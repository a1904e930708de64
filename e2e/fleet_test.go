package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

const (
	fleetSize   = 200
	fleetActive = 8
	fleetMemMiB = 256 // of the receiver, flag and measure
	// fleetWhole is how many send the dump of a machine, four times what the receiver takes at a time. The others send a
	// few pages: they are there for the line that they stand in.
	fleetWhole = 4 * fleetActive
	// fleetRate is the speed in kB/s of each line of those who come first, until all others stand in line.
	fleetRate = 50
)

// TestFleet has a fleet crash together: all dumps, each of a host and by a process of its own, go to one receiver with
// little memory that takes few at a time.
func TestFleet(t *testing.T) {
	c, err := lab.CaptureELF(t.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", MemMiB: 448, Kexec: "c"})
	if err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(judgesServe(t).send(t, c.ELF, "31"), "vmcore")
	few := stockFile(t, "few", string(vmcoretest.Sample(t, mutMade+"-zlib.kdump")))
	s := judgesServe(t, "--max-active", fmt.Sprint(fleetActive), "--memory", fmt.Sprintf("%dMiB", fleetMemMiB), "--log-format", "json")
	l := newLine(t, s.address(t))
	slow := l.slow(t, fleetRate)
	dir := t.TempDir()
	senders := s.crashFleet(t, l.target(), slices.Repeat([]string{whole}, fleetActive), dir, 0)
	fleetSay(t, senders, " to send, the receiver has ")
	rest := slices.Concat(slices.Repeat([]string{whole}, fleetWhole-fleetActive), slices.Repeat([]string{few}, fleetSize-fleetWhole))
	others := s.crashFleet(t, s.target, rest, dir, fleetActive)
	fleetSay(t, others, "waiting, place")
	l.cure(t, slow)
	senders = append(senders, others...)
	for i, p := range senders {
		if code, _ := p.wait(t); code != 0 {
			t.Fatalf("sender %d: exit code %d\n%s", i, code, p.said())
		}
	}
	peak := serveProc(t, s.cmd.Process.Pid, "status", "VmHWM:") >> 10
	dumps := s.list(t)
	most := fleetOrder(t, s.said(t))
	t.Logf("%d dumps; %d senders waited in line; peak RSS of the receiver %d MiB; nobody went past more than %d who came before",
		len(dumps), len(others), peak, most)
	if len(dumps) != fleetSize || slices.ContainsFunc(dumps, func(d serveDump) bool { return d.Manifest.State != "complete" }) {
		t.Errorf("%d dumps, want %d, all of them complete", len(dumps), fleetSize)
	}
	if peak > fleetMemMiB {
		t.Errorf("peak RSS %d MiB, want at most %d", peak, fleetMemMiB)
	}
	// Those let in together may send their plans in any order, and two who come at the same time be logged in any.
	if most > 2*fleetActive {
		t.Errorf("somebody went past %d who came before", most)
	}
}

// crashFleet has machines, numbered from the first on, send copies of these dumps, all at once.
func (s *judgesStore) crashFleet(tb testing.TB, target string, dumps []string, dir string, first int) (senders []*serveSender) {
	tb.Helper()
	var args [][]string
	for n, dump := range dumps {
		i := first + n
		own := filepath.Join(dir, fmt.Sprint(i))
		fulldiskCopy(tb, dump, own, i)
		args = append(args, []string{
			"--to", target, "--identity", s.issue(tb, fmt.Sprintf("fleet-%d", i)), "--patience", "10m", "--workers", "1", "--progress", "0", own,
		})
	}
	for _, a := range args {
		senders = append(senders, serveSend(tb, nil, a...))
	}
	return senders
}

// fleetSay waits until all senders have said this.
func fleetSay(t *testing.T, senders []*serveSender, text string) {
	t.Helper()
	serveWait(t, text, func() bool {
		return !slices.ContainsFunc(senders, func(p *serveSender) bool { return !strings.Contains(p.said(), text) })
	})
}

// fleetOrder compares, in the receiver's log, the order in which dumps came into the line with the one in which they
// sent their plans, and returns how many who came before somebody went past at most.
func fleetOrder(t *testing.T, log string) (most int) {
	t.Helper()
	var came, went []string
	for text := range strings.Lines(log) {
		var line struct{ Msg, Dump string }
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		switch line.Msg {
		case "waiting":
			came = append(came, line.Dump)
		case "plan":
			if slices.Contains(came, line.Dump) { // the first ones never waited
				went = append(went, line.Dump)
			}
		}
	}
	if len(came) != len(went) {
		t.Errorf("%d waited, and %d of them went on", len(came), len(went))
	}
	for i, dump := range went {
		past := 0
		for _, before := range came[:slices.Index(came, dump)] {
			if !slices.Contains(went[:i], before) {
				past++
			}
		}
		most = max(most, past)
	}
	return most
}
