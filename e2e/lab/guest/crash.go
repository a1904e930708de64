package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// crash arms kexec and brings the kernel down; it returns only on failure.
func crash(cfg *guestcfg.Config) error {
	if cfg.Ordered {
		if err := awaitImage(cfg); err != nil {
			return err
		}
	}
	if cfg.Time > 0 {
		if err := unix.Settimeofday(&unix.Timeval{Sec: cfg.Time}); err != nil {
			return fmt.Errorf("set the time: %w", err)
		}
	}
	if err := arm(cfg); err != nil {
		return err
	}
	say(guestcfg.ReadyToArm)
	if cfg.Busy {
		if err := fill(); err != nil {
			return err
		}
	}
	if cfg.Records {
		if err := record(); err != nil {
			return err
		}
	}
	how := cfg.Crash
	if how == guestcfg.CrashByOrder {
		var err error
		if how, err = awaitWay(); err != nil {
			return err
		}
	}
	say(guestcfg.Crashing)
	return bringDown(how, cfg.CrashCPU)
}

func bringDown(how string, cpu int) error {
	switch how {
	case "sysrq":
		if err := os.WriteFile("/proc/sys/kernel/sysrq", []byte("1"), 0); err != nil {
			return err
		}
		return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "init-exit":
		os.Exit(7)
	}
	return bringDownByChild(how, cpu)
}

// arm loads the capture kernel.
func arm(cfg *guestcfg.Config) error {
	switch cfg.Kexec {
	case guestcfg.KexecFileLoad:
		return kexecFileLoad(cfg.CaptureAppend)
	case guestcfg.KexecLoad:
		if cfg.FixKallsyms {
			if err := fixKallsyms(); err != nil {
				return err
			}
			defer func() { _ = unix.Unmount("/proc/kallsyms", 0) }()
		}
		return kexecLoad(cfg.CaptureAppend)
	}
	return fmt.Errorf("unknown kexec %q", cfg.Kexec)
}

func kexecFileLoad(cmdline string) error {
	kernel, err := os.Open(guestcfg.KernelPath)
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()
	initrd, err := os.Open(guestcfg.InitrdPath)
	if err != nil {
		return err
	}
	defer func() { _ = initrd.Close() }()
	err = unix.KexecFileLoad(int(kernel.Fd()), int(initrd.Fd()), cmdline, unix.KEXEC_FILE_ON_CRASH)
	if err != nil {
		return fmt.Errorf("kexec_file_load: %w", err)
	}
	return nil
}

func kexecLoad(cmdline string) error {
	//nolint:noctx // PID 1 has nobody to cancel it
	out, err := exec.Command(guestcfg.KexecLoader, "--library-path", guestcfg.KexecLibs, guestcfg.KexecPath, "-c",
		"-p", guestcfg.KernelPath, "--initrd="+guestcfg.InitrdPath, "--append="+cmdline).CombinedOutput()
	if err != nil {
		return fmt.Errorf("kexec: %w: %s", err, out)
	}
	return nil
}

// fixKallsyms mounts a copy of /proc/kallsyms with _text over the original. On arm64,
// _text is _stext less the 64 KiB of the head.
func fixKallsyms() error {
	const headLen = 0x10000
	syms, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return err
	}
	i := bytes.Index(syms, []byte(" T _stext\n"))
	if i < 16 {
		return fmt.Errorf("no _stext in /proc/kallsyms")
	}
	stext, err := strconv.ParseUint(string(syms[i-16:i]), 16, 64)
	if err != nil {
		return err
	}
	text := fmt.Appendf(nil, "%016x T _text\n", stext-headLen)
	if err := os.WriteFile("/tmp/kallsyms", append(text, syms...), 0o600); err != nil {
		return err
	}
	return unix.Mount("/tmp/kallsyms", "/proc/kallsyms", "", unix.MS_BIND, "")
}
