package vmcoreinfo_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/vmcoreinfo"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

const sample = `OSRELEASE=6.1.0-1-amd64
PAGESIZE=4096
SYMBOL(_stext)=ffffffffbc800000
OFFSET(page.lru)=8
LENGTH(mem_section)=2048
SIZE(page)=64
NUMBER(phys_base)=-736100352
NUMBER(kimage_voffset)=0xffffbe1588000000
NUMBER(VA_BITS)=48
KERNELOFFSET=3b800000
CRASHTIME=1763870240
EMPTY=
`

func parse(t *testing.T, text string) *vmcoreinfo.Info {
	t.Helper()
	info, err := vmcoreinfo.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestAccessors(t *testing.T) {
	i := parse(t, sample+"\x00\x00\x00")
	u := func(name string, got uint64, ok bool, want uint64) {
		t.Helper()
		if !ok || got != want {
			t.Errorf("%s: got %#x, %v, want %#x", name, got, ok, want)
		}
	}
	got, ok := i.Symbol("_stext")
	u("Symbol", got, ok, 0xffffffffbc800000)
	got, ok = i.Offset("page.lru")
	u("Offset", got, ok, 8)
	got, ok = i.Length("mem_section")
	u("Length", got, ok, 2048)
	got, ok = i.Size("page")
	u("Size", got, ok, 64)
	got, ok = i.Hex("KERNELOFFSET")
	u("KERNELOFFSET", got, ok, 0x3b800000)
	n, ok := i.Number("phys_base")
	if !ok || n != -736100352 {
		t.Errorf("phys_base: got %d, %v", n, ok)
	}
	n, ok = i.Number("kimage_voffset")
	u("kimage_voffset", uint64(n), ok, 0xffffbe1588000000)
	if s, ok := i.String("OSRELEASE"); !ok || s != "6.1.0-1-amd64" {
		t.Errorf("OSRELEASE: got %q, %v", s, ok)
	}
	if s, ok := i.String("EMPTY"); !ok || s != "" {
		t.Errorf("EMPTY: got %q, %v", s, ok)
	}
	if n, ok := i.PageSize(); !ok || n != 4096 {
		t.Errorf("PageSize: got %d, %v", n, ok)
	}
	if c, ok := i.CrashTime(); !ok || !c.Equal(time.Unix(1763870240, 0)) {
		t.Errorf("CrashTime: got %v, %v", c, ok)
	}
	if len(i.Warnings()) != 0 {
		t.Errorf("warnings: %q", i.Warnings())
	}
	if len(i.Keys()) != strings.Count(sample, "\n") {
		t.Errorf("got %d keys: %q", len(i.Keys()), i.Keys())
	}
	if string(i.Raw()) != sample {
		t.Errorf("Raw has %d bytes, want %d", len(i.Raw()), len(sample))
	}
}

func TestAbsentAndAbsurd(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		absent     func(*vmcoreinfo.Info) bool
		warn       bool
	}{
		{"absent symbol", "A=1\n", func(i *vmcoreinfo.Info) bool { _, ok := i.Symbol("x"); return !ok }, false},
		{"symbol not hexadecimal", "SYMBOL(x)=zz\n", func(i *vmcoreinfo.Info) bool { _, ok := i.Symbol("x"); return !ok }, true},
		{"symbol too long", "SYMBOL(x)=1ffffffffbc800000\n", func(i *vmcoreinfo.Info) bool { _, ok := i.Symbol("x"); return !ok }, true},
		{"negative size", "SIZE(x)=-1\n", func(i *vmcoreinfo.Info) bool { _, ok := i.Size("x"); return !ok }, true},
		{"huge offset", "OFFSET(x)=18446744073709551615\n", func(i *vmcoreinfo.Info) bool { _, ok := i.Offset("x"); return !ok }, true},
		{"number out of range", "NUMBER(x)=9223372036854775808\n", func(i *vmcoreinfo.Info) bool { _, ok := i.Number("x"); return !ok }, true},
		{"empty number", "NUMBER(x)=\n", func(i *vmcoreinfo.Info) bool { _, ok := i.Number("x"); return !ok }, true},
		{"page size 0", "PAGESIZE=0\n", func(i *vmcoreinfo.Info) bool { _, ok := i.PageSize(); return !ok }, false},
		{"page size no power of two", "PAGESIZE=5000\n", func(i *vmcoreinfo.Info) bool { _, ok := i.PageSize(); return !ok }, false},
		{"page size huge", "PAGESIZE=1073741824\n", func(i *vmcoreinfo.Info) bool { _, ok := i.PageSize(); return !ok }, false},
		{"crash time in the far future", "CRASHTIME=9223372036854775807\n", func(i *vmcoreinfo.Info) bool { _, ok := i.CrashTime(); return !ok }, false},
		{"line without =", "A=1\nnonsense\n", func(*vmcoreinfo.Info) bool { return true }, true},
		{"line without key", "A=1\n=2\n", func(*vmcoreinfo.Info) bool { return true }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i := parse(t, tc.text)
			if !tc.absent(i) {
				t.Error("the value was accepted")
			}
			if got := len(i.Warnings()) > 0; got != tc.warn {
				t.Errorf("warnings: %q", i.Warnings())
			}
		})
	}
}

func TestDoubledKeys(t *testing.T) {
	i := parse(t, "SIZE(page)=64\nSIZE(page)=64\nOFFSET(a.b)=1\nOFFSET(a.b)=2\n")
	if n, _ := i.Offset("a.b"); n != 1 {
		t.Errorf("got %d, want the first value", n)
	}
	if len(i.Warnings()) != 1 {
		t.Errorf("warnings: %q, want one for a.b", i.Warnings())
	}
}

func TestParseErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []byte
		want error
	}{
		"empty":     {nil, vmcoreinfo.ErrNoText},
		"NULs":      {make([]byte, 4096), vmcoreinfo.ErrNoText},
		"no lines":  {[]byte("hello\nworld"), vmcoreinfo.ErrNoText},
		"too large": {bytes.Repeat([]byte("A=1\n"), vmcoreinfo.MaxBytes/4+1), vmcoreinfo.ErrTooLarge},
	} {
		if i, err := vmcoreinfo.Parse(tc.in); !errors.Is(err, tc.want) || i != nil {
			t.Errorf("%s: got %v, %v, want %v", name, i, err, tc.want)
		}
	}
}

func TestManyWarningsAreCut(t *testing.T) {
	i := parse(t, "A=1\n"+strings.Repeat("nonsense\n", 10000))
	if n := len(i.Warnings()); n > 20 {
		t.Errorf("%d warnings were kept", n)
	}
}

func TestZeroInfo(t *testing.T) {
	var i vmcoreinfo.Info
	if _, ok := i.Symbol("x"); ok || len(i.Raw()) != 0 || len(i.Keys()) != 0 {
		t.Error("the zero Info has keys")
	}
}

// TestRealKernels reads what real kernels wrote.
func TestRealKernels(t *testing.T) {
	for _, name := range vmcoretest.Samples(t, "vmcore-") {
		t.Run(name, func(t *testing.T) {
			i := realInfo(t, vmcoretest.Sample(t, name))
			if len(i.Warnings()) != 0 {
				t.Errorf("warnings: %q", i.Warnings())
			}
			for _, key := range []string{"OSRELEASE", "BUILD-ID", "PAGESIZE", "SYMBOL(_stext)", "CRASHTIME"} {
				if _, ok := i.String(key); !ok {
					t.Errorf("no %s", key)
				}
			}
			if n, ok := i.Size("page"); !ok || n != 64 {
				t.Errorf("SIZE(page): got %d, %v", n, ok)
			}
			if c, ok := i.CrashTime(); !ok || c.Year() < 2020 {
				t.Errorf("CrashTime: got %v, %v", c, ok)
			}
		})
	}
}

// realInfo finds VMCOREINFO in an ELF core whose first program header is the PT_NOTE.
func realInfo(tb testing.TB, file []byte) *vmcoreinfo.Info {
	tb.Helper()
	le := binary.LittleEndian
	phoff := le.Uint64(file[32:])
	off, size := le.Uint64(file[phoff+8:]), le.Uint64(file[phoff+32:])
	desc, _ := vmcore.FindVMCOREINFO(file[off:off+size], le)
	i, err := vmcoreinfo.Parse(desc)
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	for _, name := range vmcoretest.Samples(f, "vmcore-") {
		f.Add(realInfo(f, vmcoretest.Sample(f, name)).Raw())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := vmcoreinfo.Parse(b)
		if err != nil {
			if i != nil {
				t.Error("an error and an Info")
			}
			return
		}
		// Written out and parsed again, the keys are the same.
		var out strings.Builder
		for _, key := range i.Keys() {
			v, ok := i.String(key)
			if !ok || strings.ContainsAny(key+v, "\n") {
				t.Fatalf("key %q has value %q, %v", key, v, ok)
			}
			out.WriteString(key + "=" + v + "\n")
		}
		again, err := vmcoreinfo.Parse([]byte(out.String()))
		if errors.Is(err, vmcoreinfo.ErrTooLarge) {
			return // the newline after the last line was too much
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range i.Keys() {
			a, _ := i.String(key)
			// Trailing NULs of the last line are taken for padding.
			if b, _ := again.String(key); strings.TrimRight(a, "\x00") != strings.TrimRight(b, "\x00") {
				t.Errorf("key %q: %q became %q", key, a, b)
			}
		}
	})
}
