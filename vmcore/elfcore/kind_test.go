package elfcore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestKindOf tells kernel dumps from other ELF files, however much of the file has come.
func TestKindOf(t *testing.T) {
	le, be := vmcoretest.Order(binary.LittleEndian), vmcoretest.Order(binary.BigEndian)
	prstatus := func(o vmcoretest.Order) []byte { return vmcoretest.Note(o, "CORE", 1, make([]byte, 336)) }
	note := func(o vmcoretest.Order, typ uint32) []byte {
		return slices.Concat(prstatus(o), vmcoretest.Note(o, "CORE", 3, make([]byte, 136)), vmcoretest.Note(o, "CORE", typ, make([]byte, 128)))
	}
	load := []vmcoretest.Load{{Paddr: page, Data: make([]byte, page)}}
	registers := slices.Concat(prstatus(le), vmcoretest.Note(le, "LINUX", 0x202, make([]byte, 11<<10)))
	for name, row := range map[string]struct {
		core vmcoretest.Core
		want elfcore.Kind
	}{
		"kernel":                {vmcoretest.Core{Notes: append(prstatus(le), vmcoretest.VMCOREINFO(le, "OSRELEASE=6.1\n")...)}, elfcore.KindKernel},
		"kernel, big endian":    {vmcoretest.Core{Order: be, Notes: prstatus(be)}, elfcore.KindKernel},
		"kernel of s390":        {vmcoretest.Core{Order: be, Notes: slices.Concat(vmcoretest.Note(be, "CORE", 3, make([]byte, 136)), prstatus(be))}, elfcore.KindKernel},
		"kernel without notes":  {vmcoretest.Core{}, elfcore.KindKernel},
		"process":               {vmcoretest.Core{Notes: note(le, 6)}, elfcore.KindOther},
		"process, big endian":   {vmcoretest.Core{Order: be, Notes: note(be, 6)}, elfcore.KindOther},
		"process by gcore":      {vmcoretest.Core{Notes: append(registers, note(le, 0x53494749)...)}, elfcore.KindOther},
		"program or vmlinux":    {vmcoretest.Core{Type: 2, Notes: prstatus(le)}, elfcore.KindOther},
		"shared object":         {vmcoretest.Core{Type: 3}, elfcore.KindOther},
		"kernel module":         {vmcoretest.Core{Type: 1}, elfcore.KindOther},
		"vmlinux of 32 bits":    {vmcoretest.Core{Type: 2, Class: 1}, elfcore.KindOther},
		"core of 32 bits":       {vmcoretest.Core{Class: 1}, elfcore.KindKernel},
		"vmlinux of big endian": {vmcoretest.Core{Order: be, Type: 2}, elfcore.KindOther},
	} {
		t.Run(name, func(t *testing.T) {
			row.core.Loads = load
			b := row.core.Bytes()
			if got := elfcore.KindOf(b, true); got != row.want {
				t.Errorf("the whole file is of kind %d, want %d", got, row.want)
			}
			for n := 0; n < len(b); n += 1 + n/100 {
				if got := elfcore.KindOf(b[:n], false); got != row.want && got != elfcore.KindUnknown {
					t.Fatalf("%d bytes of it are of kind %d, want %d", n, got, row.want)
				}
				if elfcore.KindOf(b[:n], true) == elfcore.KindUnknown {
					t.Fatalf("a file of %d bytes is of no kind", n)
				}
			}
			if _, err := elfcore.New(bytes.NewReader(b), int64(len(b))); row.want == elfcore.KindOther && !errors.Is(err, vmcore.ErrUnsupported) {
				t.Errorf("opened: %v", err)
			}
		})
	}
}

// TestKindOfThisProgram has a file that the linker made.
func TestKindOfThisProgram(t *testing.T) {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if got := elfcore.KindOf(b[:4096], false); got != elfcore.KindOther {
		t.Errorf("kind %d", got)
	}
}

func FuzzKindOf(f *testing.F) {
	f.Add((&vmcoretest.Core{Notes: vmcoretest.Note(binary.LittleEndian, "CORE", 6, make([]byte, 64))}).Bytes())
	f.Add((&vmcoretest.Core{Order: binary.BigEndian, Type: 2}).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		part := elfcore.KindOf(b[:len(b)/2], false)
		if whole := elfcore.KindOf(b, true); whole == elfcore.KindUnknown || part == elfcore.KindOther && whole != elfcore.KindOther {
			t.Errorf("half of it is of kind %d, all of it of kind %d", part, whole)
		}
	})
}
