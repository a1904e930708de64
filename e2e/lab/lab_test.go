package lab

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// These tests crash real machines. Each takes 10 to 60 s the first time, and almost no time
// if the cache has its dump.

func TestCaptureELF(t *testing.T) {
	for _, s := range []Scenario{
		{Kernel: "6.1"},
		{Kernel: "6.1", Kexec: "s"},
		{Kernel: "6.12-arm64", CPU: "max"},
	} {
		t.Run(s.Name(), func(t *testing.T) {
			c, err := CaptureELF(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			checkVmcore(t, c)
			checkRecords(t, c)
		})
	}
}

// checkVmcore checks that the file is as long as its headers say, and nearly as
// large as the machine.
func checkVmcore(t *testing.T, c *Captured) {
	t.Helper()
	fi, err := os.Stat(c.ELF)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(c.ELF)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var end, ram uint64
	for _, p := range f.Progs {
		end = max(end, p.Off+p.Filesz)
		if p.Type == elf.PT_LOAD {
			ram += p.Filesz
		}
	}
	if uint64(fi.Size()) != end {
		t.Errorf("vmcore has %d bytes, its headers say %d", fi.Size(), end)
	}
	want := uint64(c.Scenario.MemMiB-c.Scenario.CrashkernelMiB) << 20
	if ram < want*9/10 {
		t.Errorf("vmcore has %d bytes of memory, want about %d", ram, want)
	}
}

func checkRecords(t *testing.T, c *Captured) {
	t.Helper()
	for file, want := range map[string]string{
		c.Console:  "Kernel panic - not syncing: sysrq triggered crash",
		c.Dmesg:    "Linux version",
		c.Kallsyms: " init_uts_ns",
		c.IOMem:    "System RAM",
		c.Uname:    "lab-guest",
		c.Tasks:    "== 1 (init) ",
		c.Modules:  "virtio_blk",
		c.Meminfo:  "MemTotal:",
		c.Cmdline:  "crashkernel=",
	} {
		if b := readFile(t, file); !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s has no %q", filepath.Base(file), want)
		}
	}
	const pageLen, flagsLen = 4096, 8
	pages := c.Scenario.MemMiB << 20 / pageLen
	if got := len(readFile(t, c.KPageFlags)); got < pages*flagsLen {
		t.Errorf("kpageflags has %d bytes, want at least %d", got, pages*flagsLen)
	}
}

func TestCrashOpensWhatWeCapture(t *testing.T) {
	c, err := CaptureELF(t.Context(), Scenario{Kernel: "6.1"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	vmlinux, err := k.Vmlinux(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := CrashEach(t.Context(), vmlinux, c.ELF, "sys", "bt", "mod")
	if err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"sys": "PANIC: \"Kernel panic - not syncing: sysrq triggered crash\"",
		"bt":  "sysrq_handle_crash",
		"mod": "virtio_blk",
	} {
		if !strings.Contains(got[command], want) {
			t.Errorf("crash> %s has no %q:\n%s", command, want, got[command])
		}
	}
}

// Compression does not change the pages of a dump.
func TestJudgesAgree(t *testing.T) {
	for _, kernel := range []string{"6.1", "6.12", "6.1-arm64"} {
		t.Run(kernel, func(t *testing.T) {
			c, err := CaptureELF(t.Context(), Scenario{Kernel: kernel})
			if err != nil {
				t.Fatal(err)
			}
			k, err := GetKernel(t.Context(), kernel)
			if err != nil {
				t.Fatal(err)
			}
			lzo, zlib := filteredPages(t, k, c.ELF, "-l"), filteredPages(t, k, c.ELF, "-c")
			if *lzo != *zlib {
				t.Errorf("lzo: %+v, zlib: %+v", *lzo, *zlib)
			}
			whole, err := ReadAllPages(t.Context(), c.ELF)
			if err != nil {
				t.Fatal(err)
			}
			// Most pages of an idle machine are free, and the judge excludes them.
			if lzo.Count > whole.Count/4 {
				t.Errorf("level 31 keeps %d of %d pages", lzo.Count, whole.Count)
			}
		})
	}
}

func filteredPages(t *testing.T, k *Kernel, elf, compression string) *Pages {
	t.Helper()
	out := filepath.Join(t.TempDir(), "vmcore")
	if _, err := k.Makedumpfile(t.Context(), compression, "-d", "31", elf, out); err != nil {
		t.Fatal(err)
	}
	pages, err := ReadAllPages(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
