package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// findEvery is the time between two looks at the devices. A capture kernel has no udev, and a look takes a few reads.
const findEvery = 200 * time.Millisecond

// mountFlags keep a file system from giving the capture kernel anything but data.
const mountFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME

// mountData are the options of mount(2) for a type. A superblock may ask ext4 to panic after an error.
var mountData = map[string]string{"ext4": "errors=remount-ro"}

// Mounts mounts the file systems of a capture kernel, each once, below Dir.
type Mounts struct {
	System
	Dir string
	// Log takes lines for people.
	Log func(format string, args ...any)
	// mount and unmount are those of the kernel unless a test replaces them.
	mount   func(source, target, kind string, flags uintptr, data string) error
	unmount func(target string, flags int) error

	mu      sync.Mutex
	mounts  map[Spec]*mounting
	mounted []string // directories
	count   int      // of directories
	ended   bool
}

// mounting is one call of mount(2). dir and err are set when done is closed.
type mounting struct {
	done chan struct{}
	dir  string
	err  error
}

// Open waits until a file system is there, mounts it, and returns the directory. If ctx ends first, the mount goes on in the
// background, because the journal may be long, and another call waits for it. The error is a *RefusedError for what another try
// cannot change.
func (m *Mounts) Open(ctx context.Context, spec Spec) (dir string, err error) {
	for {
		d, err := m.Find(spec)
		if _, missing := errors.AsType[*NotFoundError](err); err != nil && !missing {
			return "", err
		}
		if err == nil {
			return m.wait(ctx, spec, d)
		}
		select {
		case <-time.After(findEvery):
		case <-ctx.Done():
			return "", err
		}
	}
}

// wait waits for the mount of a device, and begins it if nobody has.
func (m *Mounts) wait(ctx context.Context, spec Spec, d *Device) (string, error) {
	mt := m.begin(spec, d)
	select {
	case <-mt.done:
		return mt.dir, mt.err
	case <-ctx.Done():
		return "", fmt.Errorf("file system %v on %s: the kernel is still mounting it: %w", spec, d.Name, ctx.Err())
	}
}

func (m *Mounts) begin(spec Spec, d *Device) *mounting {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mt := m.mounts[spec]; mt != nil && !mt.failed() {
		return mt
	}
	if m.mounts == nil {
		m.mounts = map[Spec]*mounting{}
	}
	m.count++
	mt := &mounting{done: make(chan struct{}), dir: filepath.Join(m.Dir, "fs"+strconv.Itoa(m.count))}
	m.mounts[spec] = mt
	go func() {
		defer close(mt.done)
		mt.err = m.try(spec, d, mt.dir)
	}()
	return mt
}

// failed reports whether the mount failed, so that another try may help.
func (mt *mounting) failed() bool {
	select {
	case <-mt.done:
		return mt.err != nil
	default:
		return false
	}
}

// try mounts a device.
func (m *Mounts) try(spec Spec, d *Device, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	mount := m.mount
	if mount == nil {
		mount = unix.Mount
	}
	if err := mount(m.dev(d.Name), dir, d.Type, mountFlags, mountData[d.Type]); err != nil {
		return mountError(spec, d, err)
	}
	if !m.keep(dir) {
		return errors.Join(errors.New("too late"), m.release(dir))
	}
	m.Log("mounted %v", d)
	return nil
}

// keep leaves a mount to Close. It returns false if that has been called.
func (m *Mounts) keep(dir string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		m.mounted = append(m.mounted, dir)
	}
	return !m.ended
}

// mountError explains an error of mount(2).
func mountError(spec Spec, d *Device, err error) error {
	e := &RefusedError{Spec: spec, Text: fmt.Sprintf("mount of %s as %s: %v", d.Name, d.Type, err), Hint: "the kernel's messages on the console say more"}
	switch {
	case errors.Is(err, unix.EUCLEAN), errors.Is(err, unix.EBADMSG): // EFSCORRUPTED and EFSBADCRC
		e.Text = fmt.Sprintf("it is damaged (mount of %s as %s: %v)", d.Name, d.Type, err)
		e.Hint = "repair it with " + map[string]string{"ext4": "e2fsck", "xfs": "xfs_repair", "btrfs": "btrfs check"}[d.Type]
	case errors.Is(err, unix.ENODEV):
		e.Text, e.Hint = "the capture kernel has no driver for "+d.Type, "pack it with --module "+d.Type
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES):
		e.Text, e.Hint = fmt.Sprintf("its disk %s is read-only", d.Name), "name a disk that can be written"
	}
	return e
}

// Close writes out and unmounts everything. What cannot be unmounted, because it is still in use, is written out. What is still
// being mounted is unmounted afterwards.
func (m *Mounts) Close() error {
	m.mu.Lock()
	m.ended = true
	dirs := m.mounted
	m.mounted = nil
	m.mu.Unlock()
	var err error
	for _, dir := range dirs {
		err = errors.Join(err, m.release(dir))
	}
	return err
}

func (m *Mounts) release(dir string) error {
	unmount := m.unmount
	if unmount == nil {
		unmount = unix.Unmount
	}
	if err := unmount(dir, 0); err != nil {
		unix.Sync()
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
