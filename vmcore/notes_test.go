package vmcore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

var le, be = binary.LittleEndian, binary.BigEndian

func TestAddNotes(t *testing.T) {
	regs := bytes.Repeat([]byte{7}, 27*8)
	text := "OSRELEASE=6.1\nPAGESIZE=4096\n"
	for name, o := range map[string]vmcoretest.Order{"little": le, "big": be} {
		t.Run(name, func(t *testing.T) {
			var b []byte
			b = append(b, vmcoretest.Prstatus(o, 4711, regs)...)
			b = append(b, make([]byte, 36)...) // room for CPUs that never were
			b = append(b, vmcoretest.Prstatus(o, 0, nil)...)
			b = append(b, vmcoretest.Note(o, "QEMU", 0, []byte{1, 2, 3})...)
			b = append(b, vmcoretest.VMCOREINFO(o, text)...)
			i := &vmcore.Info{ByteOrder: o}
			i.AddNotes(b)
			if len(i.CPUs) != 2 || i.CPUs[0].PID != 4711 || !bytes.Equal(i.CPUs[0].Regs, regs) || i.CPUs[1].PID != 0 {
				t.Errorf("CPUs: %v", i.CPUs)
			}
			if s, _ := i.VMCOREINFO.String("OSRELEASE"); s != "6.1" {
				t.Errorf("OSRELEASE: %q", s)
			}
			if len(i.Warnings) != 0 {
				t.Errorf("warnings: %q", i.Warnings)
			}
			desc, off := vmcore.FindVMCOREINFO(b, o)
			if string(desc) != text || string(b[off:off+len(text)]) != text {
				t.Errorf("FindVMCOREINFO: %q at %d", desc, off)
			}
		})
	}
}

func TestAddNotesWarnings(t *testing.T) {
	short := vmcoretest.Note(le, "CORE", 1, make([]byte, 100))
	info := vmcoretest.VMCOREINFO(le, "A=1\n")
	for _, tc := range []struct {
		name, warning string
		notes         []byte
	}{
		{"descriptor beyond the end", "do not fit", append(bytes.Clone(info), 4, 0, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 'C', 0, 0, 0)},
		{"name of 4 GiB", "do not fit", append(bytes.Clone(info), 255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0)},
		{"short NT_PRSTATUS", "only 100 bytes", append(bytes.Clone(info), short...)},
		{"two VMCOREINFO notes", "second VMCOREINFO", append(bytes.Clone(info), vmcoretest.VMCOREINFO(le, "A=2\n")...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i := &vmcore.Info{ByteOrder: le}
			i.AddNotes(tc.notes)
			if s, _ := i.VMCOREINFO.String("A"); s != "1" {
				t.Errorf("A=%q", s)
			}
			if all := strings.Join(i.Warnings, "\n"); !strings.Contains(all, tc.warning) {
				t.Errorf("warnings %q lack %q", all, tc.warning)
			}
		})
	}
}

func TestEmptyVMCOREINFO(t *testing.T) {
	i := &vmcore.Info{ByteOrder: le}
	i.AddNotes(nil)
	if i.VMCOREINFO == nil || len(i.VMCOREINFO.Raw()) != 0 {
		t.Error("VMCOREINFO is nil or not empty")
	}
}

func TestErrorsMatch(t *testing.T) {
	err := error(&vmcore.AddrError{Addr: 0x1000, Err: vmcore.Corruptf("page_desc", 24, "bad")})
	if !errors.Is(err, vmcore.ErrCorrupt) || errors.Is(err, vmcore.ErrTruncated) {
		t.Errorf("%v matches the wrong errors", err)
	}
	var f *vmcore.FormatError
	if !errors.As(err, &f) || f.Off != 24 || f.Struct != "page_desc" {
		t.Errorf("no FormatError in %v", err)
	}
	if !errors.Is(vmcore.Unsupportedf("x", 0, ""), errors.ErrUnsupported) {
		t.Error("unsupported does not match errors.ErrUnsupported")
	}
}

func FuzzNotes(f *testing.F) {
	for _, name := range vmcoretest.Samples(f, "vmcore-") {
		f.Add(vmcoretest.Sample(f, name)[4096:], false)
	}
	f.Fuzz(func(t *testing.T, b []byte, big bool) {
		var o binary.ByteOrder = le
		if big {
			o = be
		}
		end := 0
		for n, err := range vmcore.Notes(b, o) {
			if err != nil {
				if !errors.Is(err, vmcore.ErrCorrupt) {
					t.Fatal(err)
				}
				break
			}
			if n.Off < end || n.Off+len(n.Desc) > len(b) || !bytes.Equal(b[n.Off:n.Off+len(n.Desc)], n.Desc) {
				t.Fatalf("note at %d of %d bytes, after %d", n.Off, len(n.Desc), end)
			}
			end = n.Off + len(n.Desc)
		}
		i := &vmcore.Info{ByteOrder: o}
		i.AddNotes(b)
		if i.VMCOREINFO == nil || len(i.Warnings) > 64 {
			t.Fatal("no VMCOREINFO, or warnings without end")
		}
	})
}
