package pid1

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Paths of the kernel's first watchdog. nowayoutPath exists with CONFIG_WATCHDOG_SYSFS.
const (
	watchdogPath = "/dev/watchdog"
	nowayoutPath = "/sys/class/watchdog/watchdog0/nowayout"
)

// magicClose is written before the close, and tells the driver to stop the watchdog.
const magicClose = "V"

// linuxWatchdog is an open /dev/watchdog.
type linuxWatchdog struct{ f *os.File }

func (linux) watchdog() (device, error) {
	f, err := os.OpenFile(watchdogPath, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // most machines have none
	}
	if err != nil {
		return nil, err
	}
	return &linuxWatchdog{f}, nil
}

func (w *linuxWatchdog) name() string {
	info, err := unix.IoctlGetWatchdogInfo(int(w.f.Fd()))
	if err != nil {
		return watchdogPath
	}
	name, _, _ := bytes.Cut(info.Identity[:], []byte{0})
	return string(name)
}

func (w *linuxWatchdog) timeout() time.Duration {
	s, err := unix.IoctlGetUint32(int(w.f.Fd()), unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return 0
	}
	return time.Duration(s) * time.Second
}

func (w *linuxWatchdog) setTimeout(d time.Duration) error {
	if err := unix.IoctlSetPointerInt(int(w.f.Fd()), unix.WDIOC_SETTIMEOUT, int(d/time.Second)); err != nil {
		return fmt.Errorf("set timeout to %v: %w", d, err)
	}
	return nil
}

func (w *linuxWatchdog) feed() error {
	_, err := w.f.Write([]byte{0})
	return err
}

func (w *linuxWatchdog) locked() bool { return neverStops() }

// neverStops reports whether the driver is known to let the watchdog run for ever once it was opened.
func neverStops() bool {
	text, err := os.ReadFile(nowayoutPath)
	return err == nil && bytes.HasPrefix(text, []byte("1"))
}

func (w *linuxWatchdog) disarm() error {
	if _, err := w.f.WriteString(magicClose); err != nil {
		return err
	}
	return w.f.Close()
}
