package sender

import (
	"fmt"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/mem"
)

// TestRecorder holds that the pages which were touched are enough to read the log.
func TestRecorder(t *testing.T) {
	m := kerneltest.NewX86(4)
	ring := kerneltest.NewRing(6, 12)
	for i := range 40 {
		ring.Add(uint64(i), fmt.Sprintf("line %d of a log that wraps once it is long enough", i))
	}
	m.InstallRing(ring.RingImage)
	r := newRecorder(&m.Memory, 12, maxLogPages)
	cfg := m.Config()
	cfg.Memory = r
	k, err := kernel.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.touchLog(k); err != nil {
		t.Fatal(err)
	}
	want := recordedLog(t, m, &m.Memory)
	only := &onlyPages{PhysReader: &m.Memory, pages: r.extents()}
	if got := recordedLog(t, m, only); got != want || len(want) < 1000 {
		t.Errorf("got %d bytes from the recorded pages, want %d", len(got), len(want))
	}
	var small kerneltest.Memory
	r = newRecorder(&small, 12, maxLogPages)
	_ = r.ReadPhys(make([]byte, 2), 0x3fff)
	if got := fmt.Sprint(r.extents()); got != "[pfn 3..4]" {
		t.Errorf("a read across two pages notes %s", got)
	}
}

func recordedLog(t *testing.T, m *kerneltest.Machine, from kernel.PhysReader) string {
	t.Helper()
	cfg := m.Config()
	cfg.Memory = from
	k, err := kernel.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var log []byte
	for rec, err := range printk.Records(k) {
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, rec.Text...)
	}
	return string(log)
}

// onlyPages is a memory of which only some pages have come.
type onlyPages struct {
	kernel.PhysReader
	pages []mem.Extent
}

func (o *onlyPages) ReadPhys(p []byte, a mem.PhysAddr) error {
	for n := a.PFN(12); n <= (a + mem.PhysAddr(len(p)-1)).PFN(12); n++ {
		if !slices.ContainsFunc(o.pages, func(e mem.Extent) bool { return e.Contains(n) }) {
			return fmt.Errorf("pfn %d is not here", n)
		}
	}
	return o.PhysReader.ReadPhys(p, a)
}
