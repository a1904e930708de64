package sender

import (
	"maps"
	"slices"
	"sync"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// maxLogPages bounds the pages of the first tier. The largest ring of the kernel has 2 GiB, and 7 GiB of descriptors.
const maxLogPages = 64 << 10

// recorder notes the page frames that are read through it.
type recorder struct {
	kernel.PhysReader
	shift uint
	most  int // page frames to note
	mu    sync.Mutex
	seen  map[mem.PFN]struct{}
}

func newRecorder(memory kernel.PhysReader, shift uint, most int) *recorder {
	return &recorder{PhysReader: memory, shift: shift, most: most, seen: map[mem.PFN]struct{}{}}
}

// ReadPhys reads and records the page frames that it read.
func (r *recorder) ReadPhys(p []byte, a mem.PhysAddr) error {
	if len(p) > 0 {
		last := a + mem.PhysAddr(len(p)-1)
		r.addPages(a.PFN(r.shift), last.PFN(r.shift))
	}
	return r.PhysReader.ReadPhys(p, a)
}

func (r *recorder) addPages(first, last mem.PFN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := first; n <= last && !r.full(); n++ {
		r.seen[n] = struct{}{}
	}
}

// full reports whether no more page frames are recorded.
func (r *recorder) full() bool { return len(r.seen) >= r.most }

// extents returns what was read, in ascending order.
func (r *recorder) extents() []mem.Extent {
	var list []mem.Extent
	for _, n := range slices.Sorted(maps.Keys(r.seen)) {
		list = mem.AppendExtent(list, mem.Extent{Start: n, Count: 1})
	}
	return list
}

// findLogPages returns the pages that a reader of the dump needs to find the log: page tables, utsname, ring and texts,
// and mem_section, without which makedumpfile does not get to the log. It finds them by reading the log once more, so it
// needs no knowledge of the log's layout in each kernel version. It is a pure function of the dump, like the plan.
func findLogPages(image vmcore.Image) []mem.Extent {
	info := image.Info()
	r := newRecorder(image, info.PageShift(), maxLogPages)
	// After a failure, the pages read so far are those that a reader can use.
	_ = catchPanic(func() error {
		k, err := machine.Kernel(r, info)
		if err != nil {
			return err
		}
		if _, err := k.Utsname(); err != nil {
			return err
		}
		if err := r.touchLog(k); err != nil {
			return err
		}
		_, err = pages.New(k, image.RAM())
		return err
	})()
	return r.extents()
}

// touchLog reads a byte of every page of the log. If these are more than r.most pages, it begins with the newest record
// and goes back. The other pages of the log come with the kernel's tier.
func (r *recorder) touchLog(k *kernel.Kernel) error {
	areas, err := printk.Areas(k)
	if err != nil {
		return err
	}
	pages := uint64(0)
	for _, a := range areas {
		pages += a.Size>>r.shift + 1
	}
	if left := uint64(r.most - len(r.seen)); pages > left {
		if err := r.touchNewest(k); err != nil {
			return err
		}
	}
	for _, a := range areas {
		if err := r.touch(k, a); err != nil {
			return err
		}
	}
	return nil
}

func (r *recorder) touchNewest(k *kernel.Kernel) error {
	newest, err := printk.Newest(k)
	if err != nil {
		return err
	}
	for a := range newest {
		if r.full() {
			break
		}
		_ = r.touch(k, a) // other records may be readable
	}
	return nil
}

// touch reads a byte of every page of an area.
func (r *recorder) touch(k *kernel.Kernel, a printk.Area) error {
	step := uint64(1) << r.shift
	var b [1]byte
	end := uint64(a.Start) + a.Size
	for at := uint64(a.Start); at < end && !r.full(); at = at&^(step-1) + step {
		if err := k.ReadVirt(b[:], mem.VirtAddr(at)); err != nil {
			return err
		}
	}
	return nil
}
