package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
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
)

var watchdogHung = regexp.MustCompile(`warning: nothing has moved for \d+ s \(loading \S+/netconsole\.ko\)`)

// watchdogRun is a machine with a watchdog that crashed.
type watchdogRun struct {
	said   string
	bitten bool // the watchdog reset it
	quiet  time.Duration
}

// watchdogCrash lets a machine crash whose sender has these settings and kernel modules.
func watchdogCrash(t *testing.T, dir, port, settings, captureAppend string, modules ...string) watchdogRun {
	t.Helper()
	kernel, err := lab.GetKernel(t.Context(), watchdogKernel)
	if err != nil {
		t.Fatal(err)
	}
	config, initrd := filepath.Join(dir, "watchdog.toml"), filepath.Join(dir, "watchdog.img")
	text := fmt.Sprintf("to = [\"tls://%s:%s\"]\nidentity = \"identity.pem\"\npatience = \"5m\"\n%s", lab.HostFromGuest, port, settings)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"initrd", "--kernel-modules", kernel.ModulesDir, "--config", config, "-o", initrd}
	for _, m := range append([]string{watchdogDevice, "virtio_pci", "virtio_net"}, modules...) {
		args = append(args, "--module", m)
	}
	captureCommand(t, captureSender, args...)
	ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
	defer cancel()
	var events []string
	var last time.Time
	run, err := lab.RunSender(ctx, lab.Scenario{Kernel: watchdogKernel}, initrd, lab.SenderOptions{
		CaptureAppend: captureAppend, Devices: []string{watchdogDevice},
		OnEvent: func(name string) { events = append(events, name) },
		OnLine: func(line string) {
			if !strings.Contains(line, "nothing has moved") {
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

// slowLine listens on the loopback address and passes bytes on to a port of it, toward
// that port at a rate. It ends with the test.
func slowLine(t *testing.T, port string, bytesPerSecond int) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
			if err != nil {
				_ = from.Close()
				continue
			}
			go func() { _, _ = io.Copy(from, to); _ = from.Close() }()
			go func() { crawl(to, from, bytesPerSecond); _ = to.Close() }()
		}
	}()
	_, slow, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return slow
}

func crawl(to io.Writer, from io.Reader, bytesPerSecond int) {
	const perSecond = 10
	for {
		if _, err := io.CopyN(to, from, int64(bytesPerSecond/perSecond)); err != nil {
			return
		}
		time.Sleep(time.Second / perSecond)
	}
}

// TestWatchdogPatient sends a dump over a line so slow that it takes far longer than the
// watchdog's timeout and the time without progress together.
func TestWatchdogPatient(t *testing.T) {
	dir, port := watchdogReceiver(t)
	start := time.Now()
	r := watchdogCrash(t, dir, slowLine(t, port, 200<<10), watchdogConfig, "")
	if r.bitten {
		t.Error("the watchdog has reset the machine")
	}
	captureCheckConsole(t, r.said)
	if !strings.Contains(r.said, "corehaul-send: watchdog: off") {
		t.Error("the watchdog was left on after a complete dump")
	}
	captureCheckDump(t, filepath.Join(dir, "data"))
	t.Logf("took %v", time.Since(start).Round(time.Second))
}

// TestWatchdogHang lets the sender hang for good in a system call: it loads netconsole,
// which waits for a cable that is not there (of bond0, which has no slaves) for as long as
// the kernel command line says.
func TestWatchdogHang(t *testing.T) {
	dir, port := watchdogReceiver(t)
	r := watchdogCrash(t, dir, port, watchdogConfig, "netpoll.carrier_timeout=3600",
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
	if r.quiet < 50*time.Second || r.quiet > 3*time.Minute {
		t.Errorf("it was reset %v after it began to hang, want about a minute", r.quiet)
	}
}

// watchdogReceiver starts a receiver in a new directory with an identity for its sender.
func watchdogReceiver(t *testing.T) (dir, port string) {
	t.Helper()
	dir = t.TempDir()
	ca := filepath.Join(dir, "ca")
	captureCommand(t, captureReceiver, "ca", "init", "--dir", ca)
	captureCommand(t, captureReceiver, "ca", "issue", captureHost, "--dir", ca, "--out", filepath.Join(dir, "identity.pem"))
	return dir, captureServe(t, filepath.Join(dir, "data"), ca)
}
