// Command guest is PID 1 of the crash lab's virtual machines.
//
// One static binary does everything, so that the initramfs has no shell and nothing else
// that differs between kernels:
//
//   - As /init of the system kernel it mounts file systems, loads the modules listed in
//     /lab.json, arms kexec, fills the memory if asked to, writes records of the kernel to
//     the disk with the serial "records", and panics.
//   - As /init of the capture kernel (with a /proc/vmcore) it copies /proc/vmcore to the disk
//     with the serial "vmcore" and reboots.
//   - With arguments it is a process that holds memory, or one that crashes the kernel.
//
// Its messages to the host are console lines that begin with "lab: ".
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

func main() {
	if len(os.Args) > 1 {
		err := child(os.Args[1:])
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	err := boot()
	say("failed: %v", err)
	powerOff()
}

// say prints one line to the console for the host. It writes to the kernel's log, where
// lines do not mix. Level 3 is printed in spite of "quiet".
func say(format string, args ...any) {
	line := fmt.Sprintf("lab: "+format, args...)
	if os.WriteFile("/dev/kmsg", []byte("<3>"+line), 0) != nil {
		fmt.Println(line)
	}
}

// boot returns only after an error.
func boot() error {
	signal.Ignore(unix.SIGPIPE)
	if err := mountBasics(); err != nil {
		return err
	}
	cfg, err := readConfig()
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(cmp.Or(cfg.Nodename, guestcfg.Hostname))); err != nil {
		return err
	}
	if err := loadModules(cfg.Modules); err != nil {
		return err
	}
	if _, err := os.Stat("/proc/vmcore"); err == nil {
		return copyOut()
	}
	return crash(cfg)
}

// child is what a process does that is not PID 1. It returns only after an error.
func child(args []string) error {
	if args[0] == crasher {
		return crashFromChild(args[1:])
	}
	return hold(args)
}

func readConfig() (*guestcfg.Config, error) {
	b, err := os.ReadFile(guestcfg.Path)
	if err != nil {
		return nil, err
	}
	var cfg guestcfg.Config
	if err := json.Unmarshal(b, &cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", guestcfg.Path, err)
	}
	return &cfg, nil
}

func mountBasics() error {
	for _, m := range []struct{ dir, fs string }{
		{"/proc", "proc"},
		{"/sys", "sysfs"},
		{"/dev", "devtmpfs"},
		{"/tmp", "tmpfs"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fs, m.dir, m.fs, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// loadModules loads files in order. The host has sorted them by dependency and
// decompressed them.
func loadModules(paths []string) error {
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && err != unix.EEXIST { //nolint:errorlint // a bare errno
			return fmt.Errorf("load %s: %w", p, err)
		}
	}
	return nil
}

// diskBySerial waits for the virtio disk that the host gave this serial and
// returns its device node.
func diskBySerial(serial string) (string, error) {
	for range 600 {
		names, err := filepath.Glob("/sys/block/vd*/serial")
		if err != nil {
			return "", err
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err == nil && strings.TrimSpace(string(b)) == serial {
				return "/dev/" + filepath.Base(filepath.Dir(name)), nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return "", fmt.Errorf("no disk with serial %q", serial)
}

// powerOff ends the virtual machine: QEMU runs with -no-reboot.
func powerOff() {
	_ = os.Stdout.Sync()
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}
