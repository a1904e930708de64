package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// A share is a kind of memory and its part of the machine's memory.
type share struct {
	kind    string
	percent int
}

// shares add up to about 60 % of the memory. The last one, "freed", is freed again,
// because free pages of a machine that has run for a while are not zero.
var shares = []share{
	{"hugetlb", 3},
	{"thp", 8},
	{"random", 8},
	{"text", 9},
	{"zero", 5},
	{"cow", 4},
	{"shm", 4},
	{"tmpfs", 8},
	{"ext4", 8},
	{"freed", 6},
}

// fill fills the memory like that of a busy machine. The contents depend on the memory
// size only.
func fill() error {
	total, err := memTotal()
	if err != nil {
		return err
	}
	for _, s := range shares {
		size := total / 100 * int64(s.percent) &^ (hugePage - 1)
		if err := fillKind(s.kind, size); err != nil {
			return fmt.Errorf("fill %s: %w", s.kind, err)
		}
	}
	poison()
	return inflateBalloon(total)
}

func fillKind(kind string, size int64) error {
	switch kind {
	case "tmpfs":
		return writeFiles("/tmp", size)
	case "ext4":
		return fillExt4(size)
	case "hugetlb":
		var err error
		if size, err = reserveHuge(size); err != nil {
			return err
		}
	}
	return startHolder(kind, size)
}

// reserveHuge reserves about size bytes of hugetlb pages, at least one, and returns how many bytes it
// got. Such a page has 2 MiB, or 32 MiB with base pages of 16 KiB.
func reserveHuge(size int64) (int64, error) {
	kib, err := meminfo("Hugepagesize")
	if err != nil {
		return 0, err
	}
	pages := max(size/(kib<<10), 1)
	err = os.WriteFile("/proc/sys/vm/nr_hugepages", []byte(strconv.FormatInt(pages, 10)), 0)
	return pages * kib << 10, err
}

// startHolder starts this program again to hold memory. It waits until that process has
// the memory or, if it only frees it, has ended.
func startHolder(kind string, size int64) error {
	cmd := exec.Command("/proc/self/exe", kind, strconv.FormatInt(size, 10)) //nolint:noctx // it lives until the panic
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != holding {
		return fmt.Errorf("holder said %q: %w", line, err)
	}
	if kind == "freed" {
		_ = out.Close()
		if err := cmd.Process.Kill(); err != nil {
			return err
		}
		_ = cmd.Wait()
	}
	return nil
}

// poison marks two pages as hardware-poisoned, if the kernel has memory failure
// handling. Debian's cloud kernels do not.
func poison() {
	if err := startHolder("poison", int64(2*pageLen)); err != nil {
		say("no poisoned pages: %v", err)
	}
}

// cacheFile is a file of text whose pages are clean page cache on ext4.
const cacheFile = "/ext4/read/file-00000"

// fillExt4 makes page cache with and without buffer heads: files written to an
// ext4 file system keep their buffers, files read again after a drop do not,
// and the blocks read from the device itself belong to no file.
func fillExt4(size int64) error {
	dev, err := diskBySerial(guestcfg.DiskFiles)
	if err != nil {
		return err
	}
	dir := filepath.Dir(filepath.Dir(cacheFile))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(dev, dir, "ext4", 0, ""); err != nil {
		return err
	}
	for _, sub := range []string{dir + "/read", dir + "/written"} {
		if err := writeFiles(sub, size/2); err != nil {
			return err
		}
		unix.Sync()
		if sub == dir+"/read" {
			if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
				return err
			}
		}
	}
	if err := readFiles(dir + "/read"); err != nil {
		return err
	}
	return readStart(dev, size/8)
}

// memTotal returns MemTotal of /proc/meminfo in bytes.
func memTotal() (int64, error) {
	kib, err := meminfo("MemTotal")
	return kib << 10, err
}

// meminfo returns an entry of /proc/meminfo, in KiB.
func meminfo(key string) (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			if _, err := fmt.Sscanf(value, "%d kB", &kib); err != nil {
				return 0, fmt.Errorf("/proc/meminfo: %s: %w", key, err)
			}
			return kib, nil
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no %s", key)
}
