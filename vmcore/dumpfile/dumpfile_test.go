package dumpfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

func save(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openSample(t *testing.T, name string) vmcore.Image {
	t.Helper()
	img, err := dumpfile.Open(save(t, "vmcore", vmcoretest.Sample(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	})
	return img
}

// TestEveryFormat opens the same memory in all formats that makedumpfile writes and
// compares it with the core that it read.
func TestEveryFormat(t *testing.T) {
	want := openSample(t, "vmcore-6.1-x86_64-tiny.elf")
	for _, tc := range []struct{ name, format, inner string }{
		{"vmcore-6.1-x86_64-tiny.elf", vmcore.FormatELF, vmcore.FormatELF},
		{"makedumpfile-1.7.6-x86_64.elf", vmcore.FormatELF, vmcore.FormatELF},
		{"makedumpfile-1.7.6-x86_64-raw.kdump", vmcore.FormatKdump, vmcore.FormatKdump},
		{"makedumpfile-1.7.6-x86_64-zlib.kdump", vmcore.FormatKdump, vmcore.FormatKdump},
		{"makedumpfile-1.7.6-x86_64-lzo.kdump", vmcore.FormatKdump, vmcore.FormatKdump},
		{"makedumpfile-1.7.6-x86_64-zstd.kdump", vmcore.FormatKdump, vmcore.FormatKdump},
		{"makedumpfile-1.7.6-x86_64-lzo.flat", vmcore.FormatFlattened, vmcore.FormatKdump},
		{"makedumpfile-1.7.6-x86_64-elf.flat", vmcore.FormatFlattened, vmcore.FormatELF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img := openSample(t, tc.name)
			i := img.Info()
			if i.Format != tc.format || i.Inner != tc.inner || i.Incomplete || len(i.Warnings) != 0 {
				t.Errorf("format %q, inner %q, incomplete %v, warnings %q", i.Format, i.Inner, i.Incomplete, i.Warnings)
			}
			if !bytes.Equal(i.Notes, want.Info().Notes) || i.PageSize != 4096 || i.MaxPFN != want.Info().MaxPFN || i.Machine != want.Info().Machine {
				t.Errorf("max_mapnr %d, want %d; %v", i.MaxPFN, want.Info().MaxPFN, i.Machine)
			}
			if n := comparePages(t, img, want); n < 9 {
				t.Errorf("only %d pages", n)
			}
		})
	}
}

func comparePages(t *testing.T, got, want vmcore.Image) int {
	t.Helper()
	p, q, r := make([]byte, 4096), make([]byte, 4096), make([]byte, 4096)
	n := 0
	for e, err := range got.Pages() {
		if err != nil {
			t.Fatal(err)
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			n++
			if err := errors.Join(got.ReadPage(p, pfn), want.ReadPage(q, pfn), got.ReadPhys(r, pfn.Addr(12))); err != nil {
				t.Fatalf("pfn %d: %v", pfn, err)
			}
			if !bytes.Equal(p, q) || !bytes.Equal(p, r) {
				t.Errorf("pfn %d differs", pfn)
			}
		}
	}
	return n
}

func TestCutFlattened(t *testing.T) {
	b := vmcoretest.Sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	img, err := dumpfile.New(bytes.NewReader(b[:len(b)-200]), int64(len(b)-200))
	if err != nil {
		t.Fatal(err)
	}
	i := img.Info()
	if !i.Incomplete || !strings.Contains(strings.Join(i.Warnings, "\n"), "truncated") {
		t.Errorf("incomplete %v, warnings %q", i.Incomplete, i.Warnings)
	}
	var good, lost, torn int
	p := make([]byte, 4096)
	for e, err := range img.Pages() {
		if err != nil {
			t.Fatal(err)
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			switch err := img.ReadPage(p, pfn); {
			case err == nil:
				good++
			case errors.Is(err, vmcore.ErrTruncated), errors.Is(err, vmcore.ErrIncomplete):
				lost++
			case errors.Is(err, vmcore.ErrCorrupt): // the descriptor that is cut in two
				torn++
			default:
				t.Errorf("pfn %d: %v", pfn, err)
			}
		}
	}
	if good == 0 || lost == 0 || torn > 1 {
		t.Errorf("%d pages read, %d lost, %d torn", good, lost, torn)
	}
}

// TestCutDumps opens the beginnings of real dumps: their notes are there.
func TestCutDumps(t *testing.T) {
	for _, name := range []string{"makedumpfile-1.7.6-d31-zstd.kdump.cut"} {
		img := openSample(t, name)
		if !img.Info().Incomplete || len(img.Info().VMCOREINFO.Raw()) == 0 || len(img.Info().CPUs) != 2 {
			t.Errorf("%s: %+v", name, img.Info())
		}
		if err := img.ReadPage(make([]byte, 4096), 1); !errors.Is(err, vmcore.ErrTruncated) && !errors.Is(err, vmcore.ErrExcluded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Here the bitmaps are cut off.
	b := vmcoretest.Sample(t, "makedumpfile-1.7.6-d31-lzo.flat.cut")
	if _, err := dumpfile.New(bytes.NewReader(b), int64(len(b))); !errors.Is(err, vmcore.ErrTruncated) {
		t.Errorf("got %v", err)
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	flat := vmcoretest.Sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	for _, tc := range []struct {
		name string
		b    []byte
		want error
	}{
		{"empty", nil, vmcore.ErrUnknownFormat},
		{"short", []byte("KD"), vmcore.ErrUnknownFormat},
		{"text", []byte("hello, this is no dump at all, but a text"), vmcore.ErrUnknownFormat},
		{"ELF magic alone", []byte("\x7fELF"), vmcore.ErrTruncated},
		{"kdump magic alone", []byte("KDUMP   "), vmcore.ErrTruncated},
		{"diskdump", append([]byte("DISKDUMP"), make([]byte, 8192)...), vmcore.ErrUnsupported},
		{"flattened without a record", flat[:4096], vmcore.ErrUnknownFormat},
		{"flattened in flattened", append(append(bytes.Clone(flat[:4096]), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0), flat[:4096]...), vmcore.ErrUnknownFormat},
	} {
		img, err := dumpfile.Open(save(t, "dump", tc.b))
		if !errors.Is(err, tc.want) || img != nil {
			t.Errorf("%s: got %v, %v, want %v", tc.name, img, err, tc.want)
		}
	}
	if _, err := dumpfile.Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if img, err := dumpfile.Open(dir); err == nil || img != nil {
		t.Errorf("a directory: %v", err)
	}
}

// FuzzNew opens anything and reads a few pages.
func FuzzNew(f *testing.F) {
	for _, part := range []string{".kdump", ".elf", ".flat", ".cut"} {
		for _, name := range vmcoretest.Samples(f, part) {
			f.Add(vmcoretest.Sample(f, name))
		}
	}
	for _, l := range vmcoretest.LackingFiles(f) {
		f.Add(l.Bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := dumpfile.New(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if img != nil {
				t.Fatal("an error and an image")
			}
			return
		}
		if a, err := vmcore.AccountOf(t.Context(), img); err != nil || a.Held > a.Planned || a.Complete() != (a.Reason() == "") {
			t.Fatalf("%+v, %v", a, err)
		}
		p := make([]byte, img.Info().PageSize)
		n := 0
		var last mem.PFN
		for e, err := range img.Pages() {
			if err != nil {
				t.Fatal(err)
			}
			if e.Start < last || !e.Valid(img.Info().MaxPFN) {
				t.Fatalf("run %v after %d, max_mapnr %d", e, last, img.Info().MaxPFN)
			}
			last = e.End()
			if err := img.ReadPage(p, e.Start); errors.Is(err, vmcore.ErrNotPresent) {
				t.Fatal(err)
			}
			if n++; n > 100 {
				break
			}
		}
	})
}
