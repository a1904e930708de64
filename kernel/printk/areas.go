package printk

import (
	"iter"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// Area is a part of the kernel's address space, Size bytes from Start on.
type Area struct {
	Start mem.VirtAddr
	Size  uint64
}

// Areas returns where the log lies, parts that were never used included: crash and
// makedumpfile read them whole before they look for records. Sizes come from the crashed
// kernel and are at most 2 GiB each. Errors are those of Records.
func Areas(k *kernel.Kernel) ([]Area, error) {
	info := k.Info()
	if _, ok := info.Symbol("prb"); ok {
		r, err := openRing(k)
		if err != nil {
			return nil, err
		}
		return []Area{{r.descs, r.count * r.descSize}, {r.infos, r.count * r.infoSize}, {r.data, r.dataSize}}, nil
	}
	if _, ok := info.Symbol("log_first_idx"); ok {
		l, err := openLog(k)
		if err != nil {
			return nil, err
		}
		return []Area{{l.buf, l.bufLen}}, nil
	}
	return nil, errNoSymbols
}

// newestStep is the size of the pieces in which the newest part of an old log comes.
const newestStep = 4096

// Newest yields where the records lie that the log holds, the newest first: whoever cannot have all of a large log has
// what led to the crash with the first of it. Parts of the log that were never used are not among them. Errors are those of Areas.
func Newest(k *kernel.Kernel) (iter.Seq[Area], error) {
	info := k.Info()
	if _, ok := info.Symbol("prb"); ok {
		r, err := openRing(k)
		if err != nil {
			return nil, err
		}
		return r.newest, nil
	}
	if _, ok := info.Symbol("log_first_idx"); ok {
		l, err := openLog(k)
		if err != nil {
			return nil, err
		}
		return l.newest, nil
	}
	return nil, errNoSymbols
}
