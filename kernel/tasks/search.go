package tasks

import (
	"bytes"
	"errors"

	"github.com/corehaul/corehaul/mem"
)

// maxSearch bounds the bytes that are searched for init_task. The data of Debian's kernels has 4 MiB without those that are
// zero at the start.
const maxSearch = 32 << 20

// maxCandidates bounds the tasks that are read. The tasks of other processors lie elsewhere, and few texts begin with this name.
const maxCandidates = 64

// errNoInit says that init_task was not found.
var errNoInit = errors.New("the kernel's symbols lack init_task, and its data has no task that could be it")

// searchInit finds init_task by its name (INIT_TASK_COMM in include/linux/init_task.h, to which smp adds the number of the
// processor) in the data of the kernel image, which follows its code for initialization.
func (r *Reader) searchInit() (mem.VirtAddr, error) {
	from, ok := r.symbols.Address("_einittext")
	if !ok {
		return 0, errNoInit
	}
	comm := mem.VirtAddr(r.task.Field("comm").Offset)
	page := make([]byte, 1<<r.k.PageShift())
	pageLen := mem.VirtAddr(len(page))
	start := from &^ (pageLen - 1)
	candidates := 0
	for at := start; at < start+maxSearch; at += pageLen {
		if r.k.ReadVirt(page, at) != nil {
			continue
		}
		const align = 8 // of comm, as of the pointers around it
		for i := 0; i < len(page); i += align {
			task := at + mem.VirtAddr(i) - comm
			if !bytes.HasPrefix(page[i:], []byte("swapper")) {
				continue
			}
			if candidates++; candidates > maxCandidates {
				return 0, errNoInit
			}
			if r.isInit(task) {
				return task, nil
			}
		}
	}
	return 0, errNoInit
}

// isInit reports whether the task at an address has PID 0 and is followed by process 1, which points back to it.
func (r *Reader) isInit(at mem.VirtAddr) bool {
	rec, err := r.task.Read(r.k, at)
	if err != nil {
		return false
	}
	node := rec.Addr("tasks")
	next := rec.Pointer("tasks.next") - (node - at)
	own, err := r.decode(rec, at)
	if err != nil || own.PID != 0 || own.TGID != 0 {
		return false
	}
	if rec, err = r.task.Read(r.k, next); err != nil {
		return false
	}
	first, err := r.decode(rec, next)
	return err == nil && first.PID == 1 && rec.Pointer("tasks.prev") == node
}
