package dumpcopy_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fileOf is b as a file that came whole.
func fileOf(b []byte) dumpcopy.File {
	return dumpcopy.File{ReaderAt: bytes.NewReader(b), Size: int64(len(b)), Came: int64(len(b)), Whole: true}
}

// damaged returns a sample with one page that does not decode.
func damaged(t *testing.T) []byte {
	t.Helper()
	b := vmcoretest.Sample(t, "makedumpfile-1.7.6-x86_64-zlib.kdump")
	k, err := kdumpfile.New(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range k.Pages() {
		for pfn := e.Start; err == nil && pfn < e.End(); pfn++ {
			if d, _, err := k.Desc(pfn); err == nil && d.Flags == uint32(kdumpfile.Zlib) {
				b[d.Offset+int64(d.Size)/2] ^= 0xff
				return b
			}
		}
	}
	t.Fatal("no page is compressed")
	return nil
}

// TestStoppedBeforeSeal stops a copy when all pages are stored, one of which does not decode. The next copy finds nothing to do, and
// still knows that a page is missing.
func TestStoppedBeforeSeal(t *testing.T) {
	f := fileOf(damaged(t))
	dir := filepath.Join(t.TempDir(), "dump")
	w, err := dumpdir.Create(dumpdir.OS{}, dir, dumpdir.Meta{ID: "00112233445566778899aabbccddeeff", Host: "n1"}, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := dumpcopy.Open(t.Context(), f, kdumpfile.Snappy)
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stopped")
	c := dumpcopy.Copy{
		W: w, Codec: kdumpfile.Snappy, Charge: func(context.Context, uint64) error { return nil },
		Ready: func() error { return stop },
	}
	if _, err := c.Run(t.Context(), s); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if c.W, err = dumpdir.Resume(dumpdir.OS{}, dir, dumpdir.Options{}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.W.Close() }()
	c.Ready = nil
	res, err := c.Run(t.Context(), s)
	if err != nil || res.State != dumpdir.StatePartial || res.Progress.Missing() != 1 || !strings.Contains(res.Reason, "1 pages of the file cannot be read") {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestEndMark opens an ELF core as long as its headers say of which the end mark did not come: the end of the stream around it, or a name
// without the mark of an unfinished file. Only a plain one is complete.
func TestEndMark(t *testing.T) {
	b := vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf")
	for name, row := range map[string]struct {
		f    dumpcopy.File
		lack string
	}{
		"plain":  {dumpcopy.File{}, ""},
		"packed": {dumpcopy.File{Packed: true}, "it broke off: why"},
		"marked": {dumpcopy.File{Marked: true}, "it broke off: why"},
		"flat":   {dumpcopy.File{Flat: true}, "it broke off: why"},
		"whole":  {dumpcopy.File{Packed: true, Whole: true}, ""},
	} {
		f := row.f
		f.ReaderAt, f.Size, f.Came, f.Broken = bytes.NewReader(b), int64(len(b)), int64(len(b)), "why"
		s, err := dumpcopy.Open(t.Context(), f, kdumpfile.Snappy)
		if err != nil || s.Lack() != row.lack {
			t.Errorf("%s: %q, %v", name, s.Lack(), err)
		}
	}
}
