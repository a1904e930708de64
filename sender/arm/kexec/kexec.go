// Package kexec loads the capture kernel of the running machine, and unloads it.
//
// It uses kexec_file_load(2), which Secure Boot and lockdown allow for signed kernels, and kexec(8) of kexec-tools where the
// running kernel lacks that call. Both take the capture kernel that was loaded before out of memory first, because the new one
// lies in the same memory: if loading fails then, nothing is loaded.
//
// The functions change the running machine and need root. They are not safe for concurrent use: the caller excludes others
// (see Lock).
package kexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// loadedFile has 1 if a capture kernel is loaded (kernel/ksysfs.c).
const loadedFile = "sys/kernel/kexec_crash_loaded"

// Loaded reports whether a capture kernel is loaded, whoever loaded it. root is / but for tests.
func Loaded(root string) (bool, error) {
	text, err := plainfile.Read(filepath.Join(root, loadedFile), 16)
	if err != nil {
		return false, err
	}
	return strings.TrimSpace(string(text)) == "1", nil
}

// ErrLocked means that another process has the lock.
var ErrLocked = errors.New("another arm or disarm is at work on this machine")

// Lock keeps other processes that call it out until the returned function is called, or this process ends. The lock lies on a
// file of the kernel, so that it leaves nothing behind. root is / but for tests.
func Lock(root string) (unlock func(), err error) {
	f, err := os.Open(filepath.Join(root, loadedFile))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // only locked
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return func() { _ = f.Close() }, nil
}

// Load loads a kernel and its initramfs with a command line as the capture kernel. Both must be files in memory (InMemory): then
// no signal interrupts the kernel while nothing is loaded.
func Load(ctx context.Context, kernel, initramfs *os.File, cmdline string) error {
	err := unix.KexecFileLoad(int(kernel.Fd()), int(initramfs.Fd()), cmdline, unix.KEXEC_FILE_ON_CRASH)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSYS):
		return loadWithTools(ctx, kernel, initramfs, cmdline)
	}
	return loadError(err)
}

// A LoadError is a refusal of the kernel, with what to do.
type LoadError struct {
	Err  error
	hint string
}

// Error names the call.
func (e *LoadError) Error() string {
	return "the kernel does not load the capture kernel: " + e.Err.Error()
}

// Unwrap returns the error number.
func (e *LoadError) Unwrap() error { return e.Err }

// Hints says what to do.
func (e *LoadError) Hints() []string { return []string{e.hint} }

// hints has what the errors of kexec_file_load(2) mean: kernel/kexec.c, kernel/kexec_file.c, security/lockdown.
var hints = []struct {
	err  error
	hint string
}{
	{unix.EPERM, "run it as root; under lockdown (cat /sys/kernel/security/lockdown) only a signed kernel is loaded; and kernel.kexec_load_disabled must be 0"},
	{unix.EKEYREJECTED, "Secure Boot wants a kernel with a valid signature: load the distribution's own, unchanged"},
	{unix.ENOKEY, "Secure Boot wants a kernel signed with a key that this kernel knows: load the distribution's own, unchanged"},
	{unix.ENODATA, "Secure Boot wants a signed kernel, and this one has no signature"},
	{unix.ENOEXEC, "the file is no kernel for this machine; name one with --kernel"},
	{unix.EADDRNOTAVAIL, "kernel and image do not fit into the reserved memory: reserve more with crashkernel="},
	{unix.ENOMEM, "kernel and image do not fit into memory: reserve more with crashkernel="},
	{unix.EBUSY, "something else is loading a kernel right now: try again"},
	{unix.EINVAL, "the command line may be too long, or the kernel is not relocatable"},
}

func loadError(err error) error {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return &LoadError{Err: err, hint: h.hint}
		}
	}
	return &LoadError{Err: err, hint: "dmesg may say more"}
}

// loadWithTools runs kexec(8). The files are its descriptors 3 and 4, because they have no names.
func loadWithTools(ctx context.Context, kernel, initramfs *os.File, cmdline string) error {
	tool, err := exec.LookPath("kexec")
	if err != nil {
		return &LoadError{Err: unix.ENOSYS, hint: "this kernel has no kexec_file_load: install kexec-tools, which uses another call"}
	}
	cmd := exec.CommandContext(ctx, tool, "-c", "-p", "/proc/self/fd/3", "--initrd=/proc/self/fd/4", "--command-line="+cmdline)
	cmd.ExtraFiles = []*os.File{kernel, initramfs}
	if out, err := cmd.CombinedOutput(); err != nil {
		return &LoadError{Err: fmt.Errorf("%s: %w: %s", tool, err, strings.TrimSpace(string(out))), hint: "dmesg may say more"}
	}
	return nil
}

// Unload takes the capture kernel out of memory. It is no error if none is loaded.
func Unload() error {
	err := unix.KexecFileLoad(-1, -1, "", unix.KEXEC_FILE_UNLOAD|unix.KEXEC_FILE_ON_CRASH)
	if errors.Is(err, unix.ENOSYS) {
		// kexec_load(2) without segments does the same. Lockdown denies it, but then the call above is there.
		_, _, n := unix.Syscall6(unix.SYS_KEXEC_LOAD, 0, 0, 0, unix.KEXEC_ON_CRASH, 0, 0)
		err = nil
		if n != 0 {
			err = n
		}
	}
	if err != nil {
		return fmt.Errorf("the kernel does not unload the capture kernel: %w", err)
	}
	return nil
}

// InMemory returns a file in memory with what write writes. No other process can open it, and it goes with the last descriptor.
// name shows in /proc. The file is closed for writing, as the kernel wants it from what it loads (kernel_read_file, ETXTBSY).
func InMemory(name string, write func(io.Writer) error) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("a file in memory for the %s: %w", name, err)
	}
	w := os.NewFile(uintptr(fd), name)
	defer func() { _ = w.Close() }() // memory has no late errors
	if err := write(w); err != nil {
		return nil, err
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
