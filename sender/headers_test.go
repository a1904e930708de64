package sender

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestSendKeepsHeaders: what the headers of a kdump-compressed file say is in the dump that
// it is sent to, in both byte orders and with every page size.
func TestSendKeepsHeaders(t *testing.T) {
	for order, o := range map[string]vmcoretest.Order{"little": binary.LittleEndian, "big": binary.BigEndian} {
		for _, size := range vmcore.PageSizes {
			t.Run(fmt.Sprintf("%s endian %d", order, size), func(t *testing.T) {
				const text, erased = "OSRELEASE=6.1.0-text\nPAGESIZE=%d\n", "erase jiffies size 8\n"
				k := &vmcoretest.Kdump{
					Order: o, PageSize: size, Utsname: [6]string{"Linux", "node", "", "#1 SMP", "ppc64", "(none)"}, Sec: 1700000000, Usec: 5,
					Status: 0x10 | 1, CurrentCPU: 5, NrCPUs: 8, PhysBase: 0x1000000, DumpLevel: 18,
					Text: fmt.Sprintf(text, size), Eraseinfo: erased, Pages: vmcoretest.Pages(1, 8, size),
				}
				path := filepath.Join(t.TempDir(), "vmcore")
				if err := os.WriteFile(path, k.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				src, err := Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = src.Close() }() // only read
				if w := strings.Join(src.Warnings(), "|"); !strings.Contains(w, "erase jiffies size 8") {
					t.Errorf("warnings: %q", w)
				}
				dir := t.TempDir()
				opts := sftpOptions(t, sftpPeer(t, dir))
				opts.Level = 1
				if _, err := Send(t.Context(), src, opts); err != nil {
					t.Fatal(err)
				}
				got, err := dumpfile.Open(filepath.Join(sftpDump(t, dir), dumpdir.VMCoreName))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = got.Close() }() // only read
				i := got.Info()
				if i.NrCPUs != 8 || i.CurrentCPU != 5 || !i.ExcludedVmemmap || i.PhysBase != 0x1000000 || i.DumpLevel != 19 {
					t.Errorf("nr_cpus %d, current_cpu %d, excluded vmemmap %v, phys_base %#x, dump_level %d", i.NrCPUs, i.CurrentCPU, i.ExcludedVmemmap, i.PhysBase, i.DumpLevel)
				}
				want := uts.Name{Sysname: "Linux", Nodename: "node", Release: "6.1.0-text", Version: "#1 SMP", Machine: vmcore.MachineName(i.Machine, o), Domainname: "(none)"}
				if i.Utsname != want || !strings.HasPrefix(i.Utsname.Machine, "ppc64") || i.Timestamp.Unix() != 1700000000 {
					t.Errorf("utsname %+v, time %v", i.Utsname, i.Timestamp)
				}
				if i.PageSize != size || i.ByteOrder.String() != o.String() || string(i.Eraseinfo) != erased {
					t.Errorf("pages of %d, %v, erased %q", i.PageSize, i.ByteOrder, i.Eraseinfo)
				}
				if desc, _ := vmcore.FindVMCOREINFO(i.Notes, o); string(desc) != k.Text {
					t.Errorf("VMCOREINFO %q", desc)
				}
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
