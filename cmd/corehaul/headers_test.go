package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/export"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

const erasedText = "erase jiffies size 8\n"

// fullKdump is a file in whose headers everything is set.
func fullKdump(o vmcoretest.Order, size int, version uint32) *vmcoretest.Kdump {
	k := &vmcoretest.Kdump{
		Order: o, Version: version, PageSize: size, Utsname: [6]string{"Linux", "node", "6.1.0-test", "#1 SMP", "ppc64", "(none)"}, Sec: 1700000000, Usec: 5,
		Status: 0x10 | 1, CurrentCPU: 5, NrCPUs: 8, PhysBase: 0x1000000, DumpLevel: 17,
		Eraseinfo: erasedText, Pages: vmcoretest.Pages(1, 8, size), SubBlocks: 300,
	}
	text := fmt.Sprintf("OSRELEASE=6.1.0-test\nPAGESIZE=%d", size) // no newline at its end
	if version == 3 {
		k.Text = text
	} else {
		k.Notes = vmcoretest.VMCOREINFO(o, text)
	}
	return k
}

// exported opens what "export" makes of a file.
func exported(t *testing.T, path, format string) vmcore.Image {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	args := []string{"export", path, "--format", format, "-o", out}
	if format != export.FormatELF {
		args = append(args, "--compress", "zlib")
	}
	corehaul(t, args...)
	img, err := dumpfile.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = img.Close() })
	return img
}

// TestExportKeepsHeaders: what the headers of a kdump-compressed file say is in what is
// exported of it, with another compressor, flattened, and as far as it has a place for it as an ELF
// core; of header versions 3 to 6, both byte orders and all page sizes.
func TestExportKeepsHeaders(t *testing.T) {
	for version := uint32(3); version <= 6; version++ {
		for order, o := range map[string]vmcoretest.Order{"little": binary.LittleEndian, "big": binary.BigEndian} {
			for _, size := range vmcore.PageSizes {
				t.Run(fmt.Sprintf("v%d %s endian %d", version, order, size), func(t *testing.T) {
					k := fullKdump(o, size, version)
					path := filepath.Join(t.TempDir(), "vmcore")
					if err := os.WriteFile(path, k.Bytes(), 0o600); err != nil {
						t.Fatal(err)
					}
					for _, format := range []string{export.FormatKdump, export.FormatFlattened, export.FormatELF} {
						img := exported(t, path, format)
						wantNotes(t, format, img.Info(), k)
						wantPages(t, img, k)
						if format != export.FormatELF {
							wantHeader(t, format, img.Info())
						}
					}
				})
			}
		}
	}
}

func wantHeader(t *testing.T, format string, i *vmcore.Info) {
	t.Helper()
	if i.NrCPUs != 8 || i.CurrentCPU != 5 || !i.ExcludedVmemmap || i.PhysBase != 0x1000000 || i.DumpLevel != 17 {
		t.Errorf("%s: nr_cpus %d, current_cpu %d, excluded vmemmap %v, phys_base %#x, dump_level %d", format, i.NrCPUs, i.CurrentCPU, i.ExcludedVmemmap, i.PhysBase, i.DumpLevel)
	}
	want := uts.Name{Sysname: "Linux", Nodename: "node", Release: "6.1.0-test", Version: "#1 SMP", Machine: vmcore.MachineName(i.Machine, i.ByteOrder), Domainname: "(none)"}
	if i.Utsname != want || !strings.HasPrefix(i.Utsname.Machine, "ppc64") || i.Timestamp.UnixMicro() != 1700000000000005 {
		t.Errorf("%s: utsname %+v, time %v", format, i.Utsname, i.Timestamp)
	}
}

func wantNotes(t *testing.T, format string, i *vmcore.Info, k *vmcoretest.Kdump) {
	t.Helper()
	if release, _ := i.VMCOREINFO.String("OSRELEASE"); release != "6.1.0-test" || i.PageSize != k.PageSize || i.ByteOrder.String() != k.Order.String() {
		t.Errorf("%s: OSRELEASE %q, pages of %d, %v", format, release, i.PageSize, i.ByteOrder)
	}
	if erased := string(i.Eraseinfo); (erased == erasedText) != (k.Version >= 5) {
		t.Errorf("%s: erased %q", format, erased)
	}
	if name := vmcore.MachineName(i.Machine, i.ByteOrder); !strings.HasPrefix(name, "ppc64") {
		t.Errorf("%s: machine %v", format, i.Machine)
	}
}

func wantPages(t *testing.T, img vmcore.Image, k *vmcoretest.Kdump) {
	t.Helper()
	page := make([]byte, k.PageSize)
	for pfn := range 8 {
		if err := img.ReadPage(page, mem.PFN(pfn)); err != nil || !bytes.Equal(page, k.Pages[pfn*k.PageSize:][:k.PageSize]) {
			t.Fatalf("pfn %d differs: %v", pfn, err)
		}
	}
}

// TestExportELFNamesMachines: an ELF core becomes a kdump-compressed file that names its
// machine, with the release and version without which libkdumpfile would not take the name.
func TestExportELFNamesMachines(t *testing.T) {
	for name, c := range map[string]*vmcoretest.Core{
		"ppc64le": {Machine: 21}, "ppc64": {Machine: 21, Order: binary.BigEndian}, "s390x": {Machine: 22, Order: binary.BigEndian},
		"riscv64": {Machine: 243}, "loongarch64": {Machine: 258}, "aarch64": {Machine: 183}, "x86_64": {Machine: 62},
	} {
		t.Run(name, func(t *testing.T) {
			var o vmcoretest.Order = binary.LittleEndian
			if c.Order != nil {
				o = c.Order
			}
			c.Notes = vmcoretest.VMCOREINFO(o, "PAGESIZE=65536\n")
			c.Loads = []vmcoretest.Load{{Data: vmcoretest.Pages(1, 2, 65536)}}
			path := filepath.Join(t.TempDir(), "vmcore")
			if err := os.WriteFile(path, c.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			want := uts.Name{Sysname: "Linux", Release: uts.Unknown, Version: uts.Unknown, Machine: name}
			if i := exported(t, path, export.FormatFlattened).Info(); i.Utsname != want || i.ByteOrder.String() != o.String() {
				t.Errorf("%+v, %v", i.Utsname, i.ByteOrder)
			}
		})
	}
}

// TestShowTellsErasedData: show has what was erased, for people and as JSON.
func TestShowTellsErasedData(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmcore")
	if err := os.WriteFile(path, fullKdump(binary.BigEndian, 65536, 6).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := corehaul(t, "show", path); !strings.Contains(out, "erase jiffies size 8") {
		t.Errorf("got %s", out)
	}
	var f machine.Description
	if err := json.Unmarshal([]byte(corehaul(t, "show", "--json", path)), &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Erased) != 1 || f.Machine != "ppc64" || f.Release != "6.1.0-test" || f.CPUs != 8 {
		t.Errorf("%+v", f)
	}
}
