package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// record writes a tar of the kernel's records to its disk. The page flags come last,
// because each further step changes them.
func record() error {
	if err := stopHugePages(); err != nil {
		return err
	}
	dev, err := diskBySerial(guestcfg.DiskRecords)
	if err != nil {
		return err
	}
	w, err := newDirectWriter(dev)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, r := range []struct {
		name string
		read func() ([]byte, error)
	}{
		{"uname", uname},
		{"cmdline", procFile("/proc/cmdline")},
		{"iomem", procFile("/proc/iomem")},
		{"meminfo", procFile("/proc/meminfo")},
		{"modules", procFile("/proc/modules")},
		{"kallsyms", procFile("/proc/kallsyms")},
		{"tasks", tasks},
		{"dmesg", dmesg},
	} {
		b, err := r.read()
		if err != nil {
			return fmt.Errorf("record %s: %w", r.name, err)
		}
		if err := addFile(tw, r.name, bytes.NewReader(b), int64(len(b))); err != nil {
			return err
		}
	}
	if err := recordPageFlags(tw); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return w.finish()
}

// stopHugePages stops the kernel from making huge pages. The records take memory themselves. For a huge page, of 32 MiB on arm64 with
// pages of 16 KiB, the kernel moves several to the list of a CPU, where their frames are free no more.
func stopHugePages() error {
	err := os.WriteFile("/sys/kernel/mm/transparent_hugepage/enabled", []byte("never"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without them
	}
	return err
}

func addFile(tw *tar.Writer, name string, r io.Reader, size int64) error {
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	if _, err := io.CopyN(tw, r, size); err != nil {
		return fmt.Errorf("record %s: %w", name, err)
	}
	return nil
}

// recordPageFlags copies /proc/kpageflags. A first pass finds its length, which the tar
// header needs and stat does not know.
func recordPageFlags(tw *tar.Writer) error {
	const path = "/proc/kpageflags"
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	size, err := io.Copy(io.Discard, f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return addFile(tw, "kpageflags", f, size)
}

func procFile(path string) func() ([]byte, error) {
	return func() ([]byte, error) { return os.ReadFile(path) }
}

func uname() ([]byte, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	var b []byte
	for _, f := range [][65]byte{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine, u.Domainname} {
		b = fmt.Appendf(b, "%s\n", unix.ByteSliceToString(f[:]))
	}
	return b, nil
}

// dmesg reads the whole log from syslog(2), with the <N> prefixes.
func dmesg() ([]byte, error) {
	const (
		readAll = 3  // SYSLOG_ACTION_READ_ALL
		bufLen  = 10 // SYSLOG_ACTION_SIZE_BUFFER
	)
	n, err := unix.Klogctl(bufLen, nil)
	if err != nil {
		return nil, err
	}
	// Each text gets a prefix, so the result may be longer than the ring.
	b := make([]byte, 4*n)
	n, err = unix.Klogctl(readAll, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// tasks lists every process with its state line and its kernel stack.
func tasks() ([]byte, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	if err != nil {
		return nil, err
	}
	sort.Slice(dirs, func(i, j int) bool { return taskID(dirs[i]) < taskID(dirs[j]) })
	var b []byte
	for _, dir := range dirs {
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // the task has ended
		}
		stack, err := os.ReadFile(dir + "/stack")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			stack = nil
		}
		b = fmt.Appendf(b, "== %s\n%s", strings.TrimSpace(string(stat)), stack)
	}
	return b, nil
}

func taskID(dir string) int {
	n, err := strconv.Atoi(filepath.Base(dir))
	if err != nil {
		return 0
	}
	return n
}

// directWriter writes a disk from its beginning, without the page cache.
type directWriter struct {
	f   *os.File
	buf []byte
	n   int   // bytes in buf
	off int64 // where buf goes
}

func newDirectWriter(dev string) (*directWriter, error) {
	f, err := os.OpenFile(dev, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	buf, err := alignedBuffer(copyBlock)
	if err != nil {
		return nil, err
	}
	return &directWriter{f: f, buf: buf}, nil
}

func (w *directWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := copy(w.buf[w.n:], p)
		w.n += n
		p = p[n:]
		if w.n == len(w.buf) {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return total, nil
}

func (w *directWriter) flush() error {
	clear(w.buf[w.n:])
	if _, err := w.f.WriteAt(w.buf, w.off); err != nil {
		return err
	}
	w.off += int64(w.n)
	w.n = 0
	return nil
}

// finish writes what is left.
func (w *directWriter) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	return w.f.Close()
}
