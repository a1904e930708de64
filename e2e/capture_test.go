package e2e

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// The programs that `make build` leaves.
const (
	captureReceiver = "../bin/corehaul"
	captureSender   = "../bin/corehaul-send"
)

// What is promised of the sender: memory on a machine of any size, and the size
// of the program, which has to fit the little memory of a capture kernel as well.
const (
	captureMaxMemoryMiB = 64
	captureMaxBinary    = 12_000_000
)

const (
	capturePanic = "Kernel panic - not syncing: sysrq triggered crash"
	captureHost  = "victim"
	// captureTimeout is for a slow host: without it a guest that hangs would use
	// up the time of all tests.
	captureTimeout = 20 * time.Minute
)

var captureMemory = regexp.MustCompile(`(?m)^corehaul-send: peak memory (\d+(?:\.\d+)?) MiB\r?$`)

var captureLeastFree = regexp.MustCompile(`(?m)^corehaul-send: least free memory (\d+\.\d+) MiB of (\d+\.\d+) MiB\r?$`)

// TestCapture lets machines panic whose capture kernels have nothing but the
// initramfs of `corehaul-send initrd` and exactly the memory that the estimate says, and looks at what the receiver has then.
func TestCapture(t *testing.T) {
	t.Parallel()
	for _, memMiB := range []int{1 << 10, 8 << 10} {
		t.Run(fmt.Sprintf("%dMiB", memMiB), func(t *testing.T) {
			t.Parallel()
			store := judgesServe(t)
			initrd := store.captureImage(t, store.address(t), "6.1", sitePrograms(t))
			scenario := lab.Scenario{Kernel: "6.1", MemMiB: memMiB}
			scenario.CrashkernelMiB = captureEstimate(t, scenario, initrd)
			said := captureRun(t, scenario, initrd, lab.SenderOptions{})
			captureCheckConsole(t, said)
			checkPrograms(t, said)
			store.checkCaptured(t)
		})
	}
}

// captureCommand runs a program to its end and returns its standard output.
func captureCommand(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%s %v: %v\n%s%s", name, args, err, out, stderr.String())
	}
	return string(out)
}

// capturePort is the port of an address.
func capturePort(tb testing.TB, address string) string {
	tb.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

// captureImage packs the initramfs of a guest, with this kernel and these modules beside those of
// its network, that sends to an address of this host. settings are lines of its configuration.
func (s *judgesStore) captureImage(tb testing.TB, address, kernel, settings string, modules ...string) string {
	tb.Helper()
	return capturePack(tb, kernel, s.captureTarget(tb, address)+settings, modules...)
}

// captureTarget has the lines of a configuration that name an address of this host.
func (s *judgesStore) captureTarget(tb testing.TB, address string) string {
	tb.Helper()
	return fmt.Sprintf("to = [\"tls://%s:%s\"]\nidentity = %q\npatience = \"5m\"\n",
		lab.HostFromGuest, capturePort(tb, address), s.issue(tb, captureHost))
}

// capturePack packs the initramfs of a guest with a configuration, to which the network's is added.
func capturePack(tb testing.TB, kernel, settings string, modules ...string) string {
	tb.Helper()
	k, err := lab.GetKernel(tb.Context(), kernel)
	if err != nil {
		tb.Fatal(err)
	}
	return capturePackTree(tb, k.ModulesDir, settings, modules...)
}

// capturePackTree is capturePack for a tree of modules, .../lib/modules/RELEASE.
func capturePackTree(tb testing.TB, tree, settings string, modules ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	config, initrd := filepath.Join(dir, "send.toml"), filepath.Join(dir, "capture.img")
	if err := os.WriteFile(config, []byte(settings+"[network]\nmode = \"dhcp\"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	args := []string{"initrd", "--kernel-modules", tree, "--config", config, "-o", initrd}
	for _, m := range append([]string{"virtio_net"}, modules...) {
		args = append(args, "--module", m)
	}
	captureCommand(tb, captureSender, args...)
	return initrd
}

// captureRun lets a machine panic whose capture kernel has an initramfs, and returns what the sender said.
func captureRun(t *testing.T, s lab.Scenario, initrd string, opts lab.SenderOptions) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
	defer cancel()
	run, err := lab.RunSender(ctx, s, initrd, opts)
	if err != nil {
		t.Fatal(err)
	}
	said := captureSaid(run)
	t.Logf("%s of QEMU; the capture kernel said\n%s", run.Duration.Round(time.Second), said)
	return said
}

// captureSaid is what the sender wrote on the console, without the kernel's lines.
func captureSaid(run *lab.Run) string {
	var said strings.Builder
	for line := range strings.Lines(run.CaptureConsole()) {
		if strings.HasPrefix(line, "corehaul-send: ") {
			said.WriteString(line)
		}
	}
	return said.String()
}

// captureCheckConsole checks what the sender said: that it got its address from
// DHCP, and what captureCheckEnd checks.
func captureCheckConsole(t *testing.T, said string) {
	t.Helper()
	if !strings.Contains(said, "from DHCP server") {
		t.Error("no address came from the DHCP server")
	}
	captureCheckEnd(t, said)
}

// captureCheckEnd checks what the sender said of its work: how much memory it took and was left, and that its last line tells of a
// complete dump.
func captureCheckEnd(t *testing.T, said string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(said), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "corehaul-send: dump complete: ") {
		t.Errorf("the last line is %q, want that of a complete dump", last)
	}
	m := captureMemory.FindStringSubmatch(said)
	if m == nil {
		t.Fatal("no line tells the peak memory")
	}
	if peak, err := strconv.ParseFloat(m[1], 64); err != nil || peak > captureMaxMemoryMiB {
		t.Errorf("peak memory is %s MiB (%v), want at most %d", m[1], err, captureMaxMemoryMiB)
	}
	if !captureLeastFree.MatchString(said) {
		t.Error("no line tells the least free memory")
	}
}

// checkCaptured checks that the one dump of a receiver is whole and tells of the panic.
func (s *judgesStore) checkCaptured(t *testing.T) {
	t.Helper()
	d := s.one(t)
	m := d.Manifest
	if d.Host != captureHost || m.State != "complete" || !strings.Contains(m.PanicLine, capturePanic) {
		t.Errorf("got a dump of %s, %s, %q, want one of %s, complete, %q", d.Host, m.State, m.PanicLine, captureHost, capturePanic)
	}
	if m.Pages.Present == 0 || m.Pages.Present != m.Pages.Planned || m.Pages.Missing != 0 {
		t.Errorf("of %d pages %d are here and %d are missing", m.Pages.Planned, m.Pages.Present, m.Pages.Missing)
	}
	captureCommand(t, captureReceiver, "verify", d.ID, "--data", s.data)
	if log := captureCommand(t, captureReceiver, "log", d.ID, "--data", s.data); !strings.Contains(log, capturePanic) {
		t.Errorf("the log, %d bytes, does not contain %q", len(log), capturePanic)
	}
}

// TestCaptureBinary holds the sender to what an initramfs without libraries and with
// little memory needs.
func TestCaptureBinary(t *testing.T) {
	info, err := os.Stat(captureSender)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > captureMaxBinary {
		t.Errorf("%d bytes, want at most %d", info.Size(), captureMaxBinary)
	}
	f, err := elf.Open(captureSender)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is not static: it has a segment %s", p.Type)
		}
	}
	for _, s := range f.Sections {
		if s.Type == elf.SHT_SYMTAB || strings.HasPrefix(s.Name, ".debug_") || strings.HasPrefix(s.Name, ".zdebug_") {
			t.Errorf("it is not stripped: it has a section %s", s.Name)
		}
	}
}
