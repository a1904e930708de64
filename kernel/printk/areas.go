package printk

import (
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
