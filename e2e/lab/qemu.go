package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// A disk is a raw image, which the guest finds by its serial.
type disk struct {
	serial, path string
	// overlay means that the image is a qcow2 over another one, which the guest's writes do not change.
	overlay bool
}

// netID is QEMU's name for the network.
const netID = "n0"

// A machine is one QEMU.
type machine struct {
	scenario Scenario
	kernel   *Kernel
	initrd   string
	dir      string // for the console log and the QMP socket
	disks    []disk
	devices  []string          // values of -device
	backends []string          // more arguments, for the backends of devices
	card     string            // model of the network card; empty means virtio-net-pci
	mac      string            // of the network card; empty means QEMU's default
	netdev   string            // value of -netdev; empty means user networking
	netboot  bool              // the network has kernel and initrd, which the firmware of the card fetches
	clock    string            // value of -rtc base=; empty means now
	input    *os.File          // what is typed on the console; nil means nothing
	onLine   func(line string) // called for each console line, without its end
	asideErr error             // error of a goroutine beside QEMU
}

// consolePath returns the path of the console log, which run writes.
func (m *machine) consolePath() string { return filepath.Join(m.dir, "console.log") }

func (m *machine) qmpPath() string { return filepath.Join(m.dir, "qmp") }

// run boots the machine and waits for the end of QEMU.
func (m *machine) run(ctx context.Context) error {
	log, err := os.Create(m.consolePath())
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	name, args := m.command()
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if m.input != nil {
		cmd.Stdin = m.input
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	// No QEMU outlives its test. The kernel sends the signal when the thread that started
	// it dies, hence the lock.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := m.readConsole(io.TeeReader(stdout, log))
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("lab: %s: %w: %s", name, err, stderr.String())
	}
	return errors.Join(readErr, m.asideErr)
}

func (m *machine) readConsole(r io.Reader) error {
	// A broken guest may print lines of any length.
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			m.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("lab: read console: %w", err)
		}
	}
}

func (m *machine) line(line string) {
	if word, ok := guestWord(line); ok && word == guestcfg.WantBalloon {
		if err := m.balloon(); err != nil {
			m.asideErr = fmt.Errorf("lab: balloon: %w", err)
		}
	}
	if m.onLine != nil {
		m.onLine(line)
	}
}

// guestWord returns the guest program's message in a console line.
func guestWord(line string) (string, bool) {
	_, word, ok := strings.Cut(line, "lab: ")
	return word, ok
}

// command returns the command line of QEMU.
func (m *machine) command() (name string, args []string) {
	s := m.scenario
	mem := fmt.Sprintf("%dM", s.MemMiB)
	args = []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		// A state does not say that the machine was stopped when it was saved.
		"-global", "migration.store-global-state=off",
		"-accel", "tcg,thread=multi", "-smp", "2", "-m", mem,
		// Memory that the guest does not touch takes none of the host's.
		"-object", "memory-backend-ram,id=m0,reserve=off,size=" + mem,
		"-serial", "stdio", "-qmp", "unix:" + m.qmpPath() + ",server=on,wait=off",
		"-netdev", choose(m.netdev == "", "user", m.netdev) + ",id=" + netID,
		"-device", choose(m.card == "", "virtio-net-pci", m.card) + ",netdev=" + netID + choose(m.netboot, "", ",romfile=") + choose(m.mac == "", "", ",mac="+m.mac),
		"-device", "virtio-balloon-pci",
	}
	if !m.netboot {
		args = append(args, "-kernel", m.kernel.Image, "-initrd", m.initrd, "-append", m.cmdline())
	}
	for _, d := range m.disks {
		args = append(args,
			"-drive", "if=none,format="+choose(d.overlay, "qcow2", "raw")+",cache=unsafe,discard=unmap,detect-zeroes=unmap,id="+d.serial+",file="+d.path,
			"-device", "virtio-blk-pci,drive="+d.serial+",serial="+d.serial)
	}
	args = append(args, m.backends...)
	for _, d := range m.devices {
		args = append(args, "-device", d)
	}
	if m.clock != "" {
		args = append(args, "-rtc", "clock=vm,base="+m.clock) // other clocks are at most 2^31 s from now
	}
	if s.arm64() {
		cpu := choose(s.CPU == "max", "max,pauth-impdef=on", s.CPU)
		return s.qemu(), append(args, "-machine", "virt,gic-version=2,memory-backend=m0", "-cpu", cpu)
	}
	// The ACPI tables of pc have no century, so Linux takes its two digits of a year for 1970 to 2069.
	kind := choose(m.clock == "", "pc", "q35")
	return s.qemu(), append(args, "-machine", kind+",memory-backend=m0", "-cpu", s.CPU)
}

// qemu returns the name of the emulator.
func (s Scenario) qemu() string {
	return choose(s.arm64(), "qemu-system-aarch64", "qemu-system-x86_64")
}

// consoleDevice returns the kernel's name of the serial port.
func (s Scenario) consoleDevice() string { return choose(s.arm64(), "ttyAMA0", "ttyS0") }

// cmdline returns the command line of the system kernel. panic=5 is for a machine without
// a loaded capture kernel.
func (m *machine) cmdline() string {
	s := m.scenario
	return strings.TrimSpace(fmt.Sprintf("%s crashkernel=%dM panic=5 %s", s.commonAppend(), s.CrashkernelMiB, s.Append))
}

// commonAppend returns what is on the command lines of both kernels. Without no_timer_check, x86_64 panics when a busy
// host loses timer interrupts of an emulated machine (seen); under KVM, Linux does not check. To arm64 the word would be
// an argument of init.
func (s Scenario) commonAppend() string {
	return "console=" + s.consoleDevice() + choose(s.arm64(), "", " no_timer_check")
}

// captureAppend is the command line of the capture kernel, similar to that of Debian's
// kdump-tools.
func (s Scenario) captureAppend() string {
	return s.commonAppend() + " nr_cpus=1 irqpoll reset_devices panic=5 quiet"
}
