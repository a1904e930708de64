package lab

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// captureTimeout is enough for a busy guest on a slow host.
const captureTimeout = 15 * time.Minute

// Captured is a dump with its records. All fields are paths in the cache. Nobody may
// write to these files.
type Captured struct {
	Scenario Scenario
	Dir      string // the directory of the files below
	ELF      string // full copy of /proc/vmcore, sparse
	Console  string // output of both kernels
	// Records of the system kernel just before the panic:
	Dmesg      string // its log, as dmesg -r
	Kallsyms   string // /proc/kallsyms
	KPageFlags string // /proc/kpageflags, one u64 for each page frame
	IOMem      string // /proc/iomem
	Uname      string // the fields of uname(2), one a line
	Tasks      string // for each task "== " and /proc/PID/stat, then its kernel stack
	Modules    string // /proc/modules
	Meminfo    string // /proc/meminfo
	Cmdline    string // /proc/cmdline
}

// CaptureELF crashes the scenario's machine and returns the dump, or the one in the
// cache.
func CaptureELF(ctx context.Context, s Scenario) (*Captured, error) {
	s = s.withDefaults()
	k, err := GetKernel(ctx, s.Kernel)
	if err != nil {
		return nil, err
	}
	name := s.Name() + "-" + s.hash(k.Release)
	dir, err := cached(ctx, "dumps", name, func(dir string) error {
		return stubbornly(ctx, dir, func() error { return capture(ctx, s, k, dir) })
	})
	if err != nil {
		return nil, err
	}
	in := func(file string) string { return filepath.Join(dir, file) }
	return &Captured{
		Scenario: s, Dir: dir, ELF: in("vmcore.elf"), Console: in("console.log"),
		Dmesg: in("dmesg"), Kallsyms: in("kallsyms"), KPageFlags: in("kpageflags"), IOMem: in("iomem"),
		Uname: in("uname"), Tasks: in("tasks"), Modules: in("modules"), Meminfo: in("meminfo"), Cmdline: in("cmdline"),
	}, nil
}

// captureTries is how often a machine is crashed until its capture kernel gets to its init. Under emulation on a busy
// host, a capture kernel sometimes dies by itself (seen: an oops in an interrupt of 6.12, once in about sixty captures).
const captureTries = 3

// stubbornly calls try until it fills dir.
func stubbornly(ctx context.Context, dir string, try func() error) (err error) {
	for range captureTries {
		if err = try(); err == nil || !errors.Is(err, ErrGuest) || ctx.Err() != nil {
			return err
		}
		if err := emptyDir(dir); err != nil {
			return err
		}
	}
	return err
}

// emptyDir removes the files of a failed try.
func emptyDir(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range names {
		err = errors.Join(err, os.RemoveAll(name))
	}
	return err
}

// capture runs the machine and puts the files of a Captured into dir.
func capture(ctx context.Context, s Scenario, k *Kernel, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, captureTimeout)
	defer cancel()
	work, err := tempDir("capture")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	captureInitrd, err := writeCaptureInitrd(ctx, k, work)
	if err != nil {
		return err
	}
	m, err := prepare(ctx, s, k, work, bootPlan{captureInitrd: captureInitrd, records: true})
	if err != nil {
		return err
	}
	vmcore := filepath.Join(dir, "vmcore.elf")
	records := filepath.Join(work, "records")
	if err := m.addCaptureDisks(vmcore, records); err != nil {
		return err
	}
	words := map[string]string{}
	m.onLine = func(line string) { noteGuestWord(words, line) }
	if err := m.run(ctx); err != nil {
		return err
	}
	if err := os.Rename(m.consolePath(), filepath.Join(dir, "console.log")); err != nil {
		return err
	}
	if err := finishCapture(words, vmcore, records, dir); err != nil {
		return guestError(err, filepath.Join(dir, "console.log"))
	}
	return nil
}

// guestError is the error of a machine that did not do what it should, with the end of its console.
func guestError(err error, consolePath string) error {
	console, _ := os.ReadFile(consolePath)
	return fmt.Errorf("%w: %w; console ends:\n%s", ErrGuest, err, tail(string(console), 15))
}

// noteGuestWord notes the messages of the guest that a capture needs.
func noteGuestWord(words map[string]string, line string) {
	word, ok := guestWord(line)
	if !ok {
		return
	}
	for _, known := range []string{guestcfg.VmcoreSize, guestcfg.CopyDone} {
		if value, ok := strings.CutPrefix(word, known); ok {
			words[known] = value
		}
	}
}

// addCaptureDisks makes the sparse images that the guest writes to.
func (m *machine) addCaptureDisks(vmcore, records string) error {
	const mib = 1 << 20
	// The vmcore has a few pages of headers on top of the memory; kpageflags
	// has 8 bytes for each 4 KiB page, and memory may lie above a hole.
	vmcoreLen := int64(m.scenario.MemMiB+64) * mib
	recordsLen := int64(256)*mib + vmcoreLen/256
	for _, d := range []struct {
		disk
		size int64
	}{
		{disk{serial: guestcfg.DiskVmcore, path: vmcore}, vmcoreLen},
		{disk{serial: guestcfg.DiskRecords, path: records}, recordsLen},
	} {
		if err := makeSparse(d.path, d.size); err != nil {
			return err
		}
		m.disks = append(m.disks, d.disk)
	}
	return nil
}

func makeSparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Close()
}

// finishCapture cuts the vmcore to its size and unpacks the records.
func finishCapture(words map[string]string, vmcore, records, dir string) error {
	if err := cutVmcore(words, vmcore); err != nil {
		return err
	}
	f, err := os.Open(records)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return untar(f, dir)
}

// cutVmcore checks that the guest has finished, and cuts the vmcore to its size.
func cutVmcore(words map[string]string, vmcore string) error {
	if _, ok := words[guestcfg.CopyDone]; !ok {
		return errors.New("the capture kernel did not finish the copy")
	}
	size, err := strconv.ParseInt(words[guestcfg.VmcoreSize], 10, 64)
	if err != nil {
		return err
	}
	if fi, err := os.Stat(vmcore); err != nil || fi.Size() < size {
		return fmt.Errorf("vmcore of %d bytes is larger than its disk: %w", size, err)
	}
	return os.Truncate(vmcore, size)
}

func untar(r io.Reader, dir string) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("records: %w", err)
		}
		f, err := os.Create(filepath.Join(dir, filepath.Base(h.Name)))
		if err != nil {
			return err
		}
		_, err = io.Copy(f, tr)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("records: %s: %w", h.Name, err)
		}
	}
}
