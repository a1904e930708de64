package e2e

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// A machine with a watchdog that resets it, as servers have; its driver's timeout is 30 s.
// Debian's cloud kernels lack the driver, apart from those of 6.12.
const (
	watchdogKernel = "6.12"
	watchdogDevice = "i6300esb"
	// watchdogConfig is the shortest time that may be asked for.
	watchdogConfig = "watchdog = \"1m\"\n"
	// watchdogRate is the speed of a line, in kB/s, on which a dump takes far longer than both.
	watchdogRate = 200
)

var watchdogHung = regexp.MustCompile(`warning: no progress for \d+ s \(loading \S+/netconsole\.ko\)`)

// watchdogRun is a machine with a watchdog that crashed.
type watchdogRun struct {
	said   string
	bitten bool // the watchdog reset it
	quiet  time.Duration
}

// crashWatched lets a machine crash whose sender has these kernel modules and sends to an address of this host.
func (s *judgesStore) crashWatched(t *testing.T, address, captureAppend string, modules ...string) watchdogRun {
	t.Helper()
	initrd := s.captureImage(t, address, watchdogKernel, watchdogConfig, append([]string{watchdogDevice}, modules...)...)
	ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
	defer cancel()
	var events []string
	var last time.Time
	run, err := lab.RunSender(ctx, lab.Scenario{Kernel: watchdogKernel}, initrd, lab.SenderOptions{
		CaptureAppend: captureAppend, Devices: []string{watchdogDevice},
		OnEvent: func(name string) { events = append(events, name) },
		OnLine: func(line string) {
			if !strings.Contains(line, "no progress") {
				last = time.Now()
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := watchdogRun{said: captureSaid(run), bitten: slices.Contains(events, "WATCHDOG"), quiet: time.Since(last)}
	t.Logf("%v of QEMU, events %q; the capture kernel said\n%s", run.Duration.Round(time.Second), events, r.said)
	if !strings.Contains(r.said, "corehaul-send: watchdog: i6300ESB timer, 30s") {
		t.Error("no line tells of the watchdog")
	}
	return r
}

// TestWatchdogPatient sends a dump over a line so slow that it takes far longer than the
// watchdog's timeout and the time without progress together.
func TestWatchdogPatient(t *testing.T) {
	t.Parallel() // it waits more than it computes
	s := judgesServe(t)
	l := newLine(t, s.address(t))
	l.slow(t, watchdogRate)
	start := time.Now()
	r := s.crashWatched(t, l.Listen, "")
	if r.bitten {
		t.Error("the watchdog has reset the machine")
	}
	captureCheckConsole(t, r.said)
	if !strings.Contains(r.said, "corehaul-send: watchdog: off") {
		t.Error("the watchdog was left on after a complete dump")
	}
	s.checkCaptured(t)
	t.Logf("took %v", time.Since(start).Round(time.Second))
}

// TestWatchdogHang lets the sender hang for good in a system call: it loads netconsole,
// which waits for a cable that is not there (of bond0, which has no slaves) for as long as
// the kernel command line says.
func TestWatchdogHang(t *testing.T) {
	t.Parallel() // it waits more than it computes
	s := judgesServe(t)
	r := s.crashWatched(t, s.address(t), "netpoll.carrier_timeout=3600",
		"bonding", "netconsole netconsole=@10.9.9.1/bond0,@10.9.9.2/")
	if !r.bitten {
		t.Error("the watchdog has not reset the machine")
	}
	if !watchdogHung.MatchString(r.said) {
		t.Error("the sender has not said what hangs")
	}
	if strings.Contains(r.said, "kernel modules loaded") || strings.Contains(r.said, "rebooting") {
		t.Error("the sender went on")
	}
	if r.quiet < 50*time.Second { // a busy machine may be late
		t.Errorf("it was reset %v after it began to hang, want about a minute", r.quiet)
	}
}
