package printk

import (
	"iter"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// Area is a part of the kernel's address space of Size bytes.
type Area struct {
	Start mem.VirtAddr
	Size  uint64
}

// Areas returns where the log lies, including unused parts: crash and makedumpfile read all of it before they look
// for records. Sizes come from the crashed kernel and are at most 2 GiB each. Errors are those of Records.
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

// newestStep is the size of the areas in which Newest returns an old log.
const newestStep = 4096

// Newest yields the areas of the log's records, newest first, so that a reader that cannot have all of a large log
// gets the end first. It leaves out unused parts. Errors are those of Areas.
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
