package kdumpclients

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

var le, be = binary.LittleEndian, binary.BigEndian

const erasedText = "erase jiffies size 8\n"

// fullKdump is a kdump-compressed file in whose headers everything is set.
func fullKdump(o vmcoretest.Order, pageSize int) *vmcoretest.Kdump {
	return &vmcoretest.Kdump{
		Order: o, PageSize: pageSize, Utsname: [6]string{"Linux", "node", "6.1.0-test", "#1 SMP", "ppc64", "(none)"}, Sec: 1700000000, Usec: 5,
		Status: 0x10 | 1, CurrentCPU: 5, NrCPUs: 8, PhysBase: 0x1000000, DumpLevel: 17,
		Notes:     vmcoretest.Note(o, "CORE", 1, make([]byte, 504)),
		Eraseinfo: erasedText, Pages: vmcoretest.Pages(1, 8, pageSize),
	}
}

// wantHeaders compares what the headers of an image say with fullKdump's.
func wantHeaders(t *testing.T, i *vmcore.Info, o vmcoretest.Order, pageSize int) {
	t.Helper()
	if i.NrCPUs != 8 || i.CurrentCPU != 5 || !i.ExcludedVmemmap || i.PhysBase != 0x1000000 || i.DumpLevel != 17 {
		t.Errorf("nr_cpus %d, current_cpu %d, excluded vmemmap %v, phys_base %#x, dump_level %d", i.NrCPUs, i.CurrentCPU, i.ExcludedVmemmap, i.PhysBase, i.DumpLevel)
	}
	if i.Utsname.Release != "6.1.0-test" || i.Utsname.Version != "#1 SMP" || i.Utsname.Nodename != "node" || i.Timestamp.Unix() != 1700000000 {
		t.Errorf("utsname %+v, time %v", i.Utsname, i.Timestamp)
	}
	if i.PageSize != pageSize || i.ByteOrder.String() != o.String() || string(i.Eraseinfo) != erasedText || i.Machine != elf.EM_PPC64 {
		t.Errorf("pages of %d, %v, erased %q, machine %v", i.PageSize, i.ByteOrder, i.Eraseinfo, i.Machine)
	}
}

// flatten writes a file as makedumpfile -F --config does: the sub header once without, and
// at the end once more with what was erased.
func flatten(t *testing.T, k *vmcoretest.Kdump) []byte {
	t.Helper()
	whole, size := k.Bytes(), k.PageSize
	first := bytes.Clone(whole)
	clear(first[size+64 : size+80])
	var out bytes.Buffer
	w, err := flattened.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	end := len(whole) - len(k.Eraseinfo)
	for _, part := range []struct {
		b   []byte
		off int
	}{{first[:2*size], 0}, {first[2*size : end], 2 * size}, {whole[end:], end}, {whole[size : size+104], size}} {
		if _, err := w.WriteAt(part.b, int64(part.off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestImportKeepsHeaders: what the headers of a kdump-compressed file say is in the dump
// that is made of it, plain and flattened, in both byte orders, with every page size and with
// VMCOREINFO that only the sub header names.
func TestImportKeepsHeaders(t *testing.T) {
	for order, o := range map[string]vmcoretest.Order{"little": le, "big": be} {
		for _, size := range vmcore.PageSizes {
			for _, form := range []string{"plain", "flattened"} {
				t.Run(fmt.Sprintf("%s endian %d %s", order, size, form), func(t *testing.T) {
					k := fullKdump(o, size)
					b := k.Bytes()
					if form == "flattened" {
						b = flatten(t, k)
					}
					s := open(t, t.TempDir())
					redhat(t, treeOf(t, s, "n1"), b)
					drain(t, s)
					e := only(t, s)
					if e.Manifest.State != dumpdir.StateComplete || e.Manifest.Release != "6.1.0-test" {
						t.Errorf("%+v", e.Manifest)
					}
					got := check(t, s, e)
					wantHeaders(t, got.Info(), o, size)
					page := make([]byte, size)
					for pfn := range 8 {
						if err := got.ReadPage(page, mem.PFN(pfn)); err != nil || !bytes.Equal(page, k.Pages[pfn*size:][:size]) {
							t.Fatalf("pfn %d differs: %v", pfn, err)
						}
					}
				})
			}
		}
	}
}

// TestImportKeepsVMCOREINFOOfTheSubHeader: files of header_version 3 have no notes.
func TestImportKeepsVMCOREINFOOfTheSubHeader(t *testing.T) {
	k := fullKdump(le, 4096)
	k.Version, k.Notes, k.Eraseinfo, k.Utsname = 3, nil, "", [6]string{}
	k.Text = "OSRELEASE=4.4.0-text\nPAGESIZE=4096\nNUMBER(pgtable_l5_enabled)=0\nCRASHTIME=1700000001"
	s := open(t, t.TempDir())
	redhat(t, treeOf(t, s, "n1"), k.Bytes())
	drain(t, s)
	e := only(t, s)
	if m := e.Manifest; m.Release != "4.4.0-text" || m.Machine != "x86_64" || m.CrashTime == nil || m.CrashTime.Unix() != 1700000001 {
		t.Errorf("%+v", m)
	}
	i := check(t, s, e).Info()
	if desc, _ := vmcore.FindVMCOREINFO(i.Notes, le); string(desc) != k.Text || i.Utsname.Release != "4.4.0-text" || i.Utsname.Machine != "x86_64" {
		t.Errorf("VMCOREINFO %q, utsname %+v", desc, i.Utsname)
	}
}

// TestImportNamesMachines: an ELF core names its machine by a number. The dump has uname's
// name, by byte order, with a release and a version, without which libkdumpfile takes none of it.
func TestImportNamesMachines(t *testing.T) {
	for _, tc := range []struct {
		name    string
		machine elf.Machine
		order   vmcoretest.Order
		page    int
	}{
		{"ppc64", elf.EM_PPC64, be, 65536},
		{"ppc64le", elf.EM_PPC64, le, 65536},
		{"s390x", elf.EM_S390, be, 4096},
		{"riscv64", elf.EM_RISCV, le, 4096},
		{"loongarch64", elf.EM_LOONGARCH, le, 16384},
		{"aarch64", elf.EM_AARCH64, le, 65536},
		{"x86_64", elf.EM_X86_64, le, 4096},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := map[int]string{4096: "PAGESIZE=4096\n", 16384: "PAGESIZE=16384\n", 65536: "PAGESIZE=65536\n"}[tc.page]
			core := &vmcoretest.Core{
				Order: tc.order, Machine: uint16(tc.machine), Notes: vmcoretest.VMCOREINFO(tc.order, "OSRELEASE=5.14.0\n"+text),
				Loads: []vmcoretest.Load{{Data: vmcoretest.Pages(1, 4, tc.page)}},
			}
			s := open(t, t.TempDir())
			redhat(t, treeOf(t, s, "n1"), core.Bytes())
			drain(t, s)
			e := only(t, s)
			if e.Manifest.Machine != tc.name || e.Manifest.Release != "5.14.0" {
				t.Errorf("manifest: %q %q", e.Manifest.Machine, e.Manifest.Release)
			}
			i := check(t, s, e).Info()
			if u := i.Utsname; u.Machine != tc.name || u.Release != "5.14.0" || u.Version != uts.Unknown || u.Sysname != "Linux" {
				t.Errorf("utsname %+v", u)
			}
			if i.ByteOrder.String() != tc.order.String() || i.PageSize != tc.page || i.Machine != tc.machine {
				t.Errorf("%v, pages of %d, %v", i.ByteOrder, i.PageSize, i.Machine)
			}
		})
	}
}

// crashed is a kdump-compressed file of a made-up x86_64 machine with a name and a log.
func crashed(t *testing.T) *vmcoretest.Kdump {
	t.Helper()
	m := kerneltest.NewX86(4)
	ring := kerneltest.NewRing(6, 12)
	for i, line := range []string{"Linux version 6.1.0-memory", "Kernel panic - not syncing: in memory"} {
		ring.Add(uint64(i)*1e9, line)
	}
	m.InstallRing(ring.RingImage)
	m.SetUtsname(m.Image(0x1000), 4, uts.Name{
		Sysname: "Linux", Nodename: "memory", Release: "6.1.0-memory", Version: "#1 memory", Machine: "x86_64",
	})
	text := "OSRELEASE=6.1.0-memory\nPAGESIZE=4096\n"
	for kind, values := range map[string]map[string]uint64{"SIZE": m.Sizes, "OFFSET": m.Offsets, "LENGTH": m.Lengths} {
		for name, v := range values {
			text += fmt.Sprintf("%s(%s)=%d\n", kind, name, v)
		}
	}
	for name, v := range m.Symbols {
		text += fmt.Sprintf("SYMBOL(%s)=%x\n", name, v)
	}
	for name, v := range m.Numbers {
		if name != "pgtable_l5_enabled" { // the notes alone tell the machine
			text += fmt.Sprintf("NUMBER(%s)=%d\n", name, v)
		}
	}
	k := &vmcoretest.Kdump{NrCPUs: 1, DumpLevel: 31, Notes: append(vmcoretest.Prstatus(le, 1, nil), vmcoretest.VMCOREINFO(le, text)...)}
	page := make([]byte, 4096)
	for pfn := range uint64(0x21000) {
		if m.ReadPhys(page, mem.PhysAddr(pfn<<12)) == nil {
			k.Frames, k.Pages = append(k.Frames, pfn), append(k.Pages, page...)
		}
	}
	return k
}

// TestImportWithoutUtsname: a header without utsname, as a makedumpfile older than the kernel
// leaves it, or with QEMU's, costs neither the log nor the panic line nor the names.
func TestImportWithoutUtsname(t *testing.T) {
	for name, uts := range map[string][6]string{
		"none": {}, "QEMU": {4: "x86_64"}, "of a machine without a name in QEMU": {4: "Unknown"},
		"whole": {"Linux", "memory", "6.1.0-memory", "#1 memory", "x86_64"},
	} {
		t.Run(name, func(t *testing.T) {
			k := crashed(t)
			k.Utsname = uts
			s := open(t, t.TempDir())
			if err := put(t, treeOf(t, s, "n1"), "/vmcore", k.Bytes(), 64<<10).Close(); err != nil {
				t.Fatal(err)
			}
			settle(t, s)
			e := only(t, s)
			m := e.Manifest
			if m.Release != "6.1.0-memory" || m.Machine != "x86_64" || m.Nodename != "memory" || !strings.Contains(m.PanicLine, "in memory") {
				t.Errorf("release %q, machine %q, nodename %q, panic line %q", m.Release, m.Machine, m.Nodename, m.PanicLine)
			}
			log, err := os.ReadFile(filepath.Join(e.Path, dumpdir.LogName))
			if err != nil || !strings.Contains(string(log), "Linux version 6.1.0-memory") {
				t.Errorf("log %q, %v", log, err)
			}
			if u := check(t, s, e).Info().Utsname; u.Version != "#1 memory" || u.Machine != "x86_64" {
				t.Errorf("stored utsname %+v", u)
			}
		})
	}
}
