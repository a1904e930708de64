package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// HostFromGuest is the address at which a guest reaches the host's 127.0.0.1
// (QEMU's user networking, which has DHCP too).
const HostFromGuest = "10.0.2.2"

// SenderOptions are options of RunSender. The zero value is valid.
type SenderOptions struct {
	// CaptureAppend is added to the command line of the capture kernel.
	CaptureAppend string
	// OnEvent is called with the names of QEMU's events, such as SHUTDOWN or WATCHDOG, from one
	// goroutine. It may be nil. It is not for busy machines, whose balloon needs QMP.
	OnEvent func(name string)
	// Clock is the time of the machine's clock when it starts, as 1970-01-01T00:00:00. The
	// system kernel corrects its own clock. Empty means the current time.
	Clock string
	// Start is called once, before QEMU is started. link connects and disconnects the machine's
	// network cable while QEMU runs.
	Start func(link func(up bool) error)
	// Card is the model of the network card, as QEMU names it. Empty means virtio-net-pci.
	Card string
	// Devices are added to the machine, each a value of QEMU's -device.
	Devices []string
	// Backends are more arguments of QEMU, for the backends of Devices.
	Backends []string
	// Disks are the paths of raw images that both kernels have as virtio-blk disks, in this order from vda on.
	Disks []string
	// Input is what somebody types on the console. It may be nil.
	Input *os.File
	// OnLine is called with each line of the console, in order, from one goroutine. It
	// may cancel the context to kill the machine. OnLine and OnEvent hear of each try of RunSender.
	OnLine func(line string)
}

// A Run is a machine that crashed and ran a capture initramfs.
type Run struct {
	// Console is the output of both kernels.
	Console string
	// Duration is from the start of QEMU to its end.
	Duration time.Duration
}

// CaptureConsole returns the output after the panic, of the capture kernel and its init.
func (r *Run) CaptureConsole() string {
	_, after, _ := strings.Cut(r.Console, "Kernel panic - not syncing")
	return after
}

// machineDied reports whether a kernel ended before the capture kernel's init wrote a line. The kernel begins each of its
// lines with a time, and those of the lab's own init, which go through its log. That init ended without a word is no fault
// of the machine.
func (r *Run) machineDied() bool {
	console := r.CaptureConsole()
	if strings.Contains(console, "Attempted to kill init") || strings.Contains(console, "No working init") {
		return false
	}
	_, console, _ = strings.Cut(console, "\n")
	for line := range strings.Lines(console) {
		line = strings.TrimSpace(line)
		if _, ours := guestWord(line); ours || line != "" && !strings.HasPrefix(line, "[") {
			return false
		}
	}
	return true
}

// RunSender boots the scenario's machine with captureInitrd, the path of an
// uncompressed or compressed cpio archive, as initramfs of its capture kernel,
// lets it panic and waits until QEMU ends, because either kernel reboots, or ctx ends.
// If QEMU was started, the Run is not nil, whatever the error. For the network, the
// initramfs needs the module virtio_net and its dependencies. A machine that dies before its init
// has said a word is crashed again, see captureTries; its console's end goes to standard error.
func RunSender(ctx context.Context, s Scenario, captureInitrd string, opts SenderOptions) (*Run, error) {
	var current atomic.Pointer[machine]
	begin := func(m *machine) {
		if before := current.Swap(m); before == nil && opts.Start != nil {
			opts.Start(func(up bool) error { return current.Load().link(up) })
		}
	}
	ready := opts.startsReady(s.withDefaults())
	for range captureTries - 1 {
		r, err := runSender(ctx, s, captureInitrd, opts, ready, begin)
		if err != nil || !r.machineDied() {
			return r, err
		}
		ready = false // perhaps the state is what kills it
		fmt.Fprintf(os.Stderr, "lab: the machine died after %v, before its init spoke; its console ends:\n%s\n", r.Duration, tail(r.Console, 30))
	}
	return runSender(ctx, s, captureInitrd, opts, ready, begin)
}

// runSender is one try of RunSender, which begins in a saved state if ready is true. It calls begin before it starts QEMU.
func runSender(ctx context.Context, s Scenario, captureInitrd string, opts SenderOptions, ready bool, begin func(*machine)) (*Run, error) {
	s = s.withDefaults()
	k, err := GetKernel(ctx, s.Kernel)
	if err != nil {
		return nil, err
	}
	work, err := tempDir("sender")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	captureInitrd, err = filepath.Abs(captureInitrd)
	if err != nil {
		return nil, err
	}
	m, err := opts.machine(ctx, s, k, work, captureInitrd, ready)
	if err != nil {
		return nil, err
	}
	begin(m)
	start := time.Now()
	watched := func() error { return nil }
	if opts.OnEvent != nil {
		watched = m.watchEvents(ctx, opts.OnEvent)
	}
	runErr := errors.Join(m.run(ctx), watched())
	console, err := os.ReadFile(m.consolePath())
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	return &Run{Console: string(console), Duration: time.Since(start)}, runErr
}

// machine returns the machine of a scenario, with the options: in its saved state if ready is true, else before its boot.
func (o *SenderOptions) machine(ctx context.Context, s Scenario, k *Kernel, work, captureInitrd string, ready bool) (*machine, error) {
	plan := bootPlan{captureInitrd: captureInitrd, captureAppend: o.CaptureAppend}
	if o.Clock != "" {
		plan.time = time.Now().Unix()
	}
	var m *machine
	if ready {
		state, err := readyState(ctx, s, k, o)
		if err != nil {
			return nil, err
		}
		if m, err = state.ready(s, k, work, plan, o.Disks); err != nil {
			return nil, err
		}
	} else {
		var err error
		if m, err = prepare(ctx, s, k, work, plan); err != nil {
			return nil, err
		}
		m.addDisks(o.Disks)
	}
	m.card, m.clock, m.input, m.onLine, m.devices = o.Card, o.Clock, o.Input, o.OnLine, o.Devices
	m.backends = append(m.backends, o.Backends...)
	return m, nil
}
