package pid1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/disk"
	"github.com/corehaul/corehaul/sender/network"
)

// linux is the machine of the running kernel.
type linux struct{}

// panicTimeout is after how many seconds the kernel reboots if PID 1 dies.
const panicTimeout = "10"

func (linux) mount() (errs []error) {
	for _, m := range []struct{ kind, dir, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"tmpfs", "/run", "mode=0755,size=1m"},
		{"tmpfs", "/tmp", "mode=1777,size=1m"},
	} {
		err := os.MkdirAll(m.dir, 0o755)
		if err == nil {
			err = unix.Mount(m.kind, m.dir, m.kind, unix.MS_NOSUID, m.data)
		}
		if err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.dir, err))
		}
	}
	if err := os.WriteFile("/proc/sys/kernel/panic", []byte(panicTimeout), 0); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// maxSmallFile bounds what readFile reads.
const maxSmallFile = 1 << 20

func (linux) readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxSmallFile))
}

func (linux) console(name string) (*os.File, error) {
	// Without O_NOCTTY, the terminal's interrupt key would end this process.
	return os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY, 0)
}

func (linux) loadModule(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	err = unix.FinitModule(int(f.Fd()), params, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// randomNote is after how long the console says that random numbers are not ready.
const randomNote = 3 * time.Second

// awaitRandom waits until the kernel's random numbers are ready. TLS and DHCP's transaction ids need them. It has to use
// a blocking call, because only that makes the kernel (since 5.4, commit 50ee7529ec45) gather entropy on an idle machine.
// The DHCP library asks without blocking and would spin for ever.
func awaitRandom(ctx context.Context, log func(string, ...any)) error {
	ready := make(chan error, 1)
	go func() {
		var b [1]byte
		_, err := unix.Getrandom(b[:], 0)
		ready <- err
	}()
	note := time.After(randomNote)
	for {
		select {
		case err := <-ready:
			return err
		case <-note:
			log("waiting for the kernel's random numbers")
		case <-ctx.Done():
			return fmt.Errorf("random numbers: %w", ctx.Err())
		}
	}
}

func (linux) network(c config.Network, log func(string, ...any), again func()) lines {
	return &manager{network.Manager{Config: c, ResolvConf: "/etc/resolv.conf", Log: log, Again: again}}
}

// manager is a network.Manager that waits for random numbers first.
type manager struct{ network.Manager }

func (m *manager) Up(ctx context.Context) error {
	if err := awaitRandom(ctx, m.Log); err != nil {
		return err
	}
	return m.Manager.Up(ctx)
}

func (linux) disks(log func(string, ...any)) disks {
	return &disk.Mounts{Dir: "/run/corehaul", Log: log}
}

func (linux) pause(d time.Duration) { time.Sleep(d) }

// end powers off or halts the machine, or else reboots it. If the kernel refuses, end reboots by the magic SysRq key.
func (linux) end(how string) {
	unix.Sync()
	cmd := unix.LINUX_REBOOT_CMD_RESTART
	switch how {
	case "poweroff":
		cmd = unix.LINUX_REBOOT_CMD_POWER_OFF
	case "halt":
		cmd = unix.LINUX_REBOOT_CMD_HALT
	}
	if err := unix.Reboot(cmd); err != nil {
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0)
	}
}
