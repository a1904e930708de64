package tasks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/mem"
)

// The counters of mm_struct.rss_stat whose sum is the RSS (get_mm_rss in include/linux/mm.h; the anonymous enumeration with
// MM_FILEPAGES in include/linux/mm_types_task.h, since 4.5).
var residentCounters = []uint64{0, 1, 3} // MM_FILEPAGES, MM_ANONPAGES, MM_SHMEMPAGES; 2 is MM_SWAPENTS

// Bytes of an int of the kernel.
const intBytes = 4

// memory reads what processes use.
type memory struct {
	r     *Reader
	space *types.View
	// stride and count place the counters: one in each stride bytes of rss_stat, count bytes from its start.
	stride, count uint64
	// counters is where the part of each processor is, if the counters are struct percpu_counter.
	counters uint64
	perCPU   bool
	maxParts int
}

// maxParts bounds the parts of counters that one list of tasks reads, one for each processor and process: for 10,000 processes on
// 800 processors. Hostile memory may have 262,144 processes on 16,384 processors.
const maxParts = 8 << 20

// newMemory finds the form of mm_struct.rss_stat: struct mm_rss_stat with an array of atomic numbers or, since 6.2
// (f1a7941243c1), an array of struct percpu_counter.
func newMemory(r *Reader) (*memory, error) {
	m := &memory{r: r, maxParts: maxParts}
	var err error
	if m.space, err = r.known.View("mm_struct", []string{"total_vm", "rss_stat"}); err != nil {
		return nil, err
	}
	stat := m.space.Field("rss_stat")
	if stat.Len == 0 {
		array, err := r.known.Field("mm_struct", "rss_stat.count")
		if err != nil {
			return nil, err
		}
		// BTF may have several types of this name. From another one, count may come with any offset, which check refuses.
		m.count, m.stride = array.Offset-stat.Offset, 8
		return m, m.check(stat)
	}
	m.perCPU, m.stride = true, stat.Size/stat.Len
	if m.count, err = r.known.Offset("percpu_counter", "count"); err != nil {
		return nil, err
	}
	m.counters, err = r.known.Offset("percpu_counter", "counters")
	if errors.Is(err, types.ErrNotFound) { // without CONFIG_SMP
		m.perCPU, err = false, nil
	}
	if err != nil {
		return nil, err
	}
	return m, m.check(stat)
}

// check holds that all counters lie in the member.
func (m *memory) check(stat types.Field) error {
	last := residentCounters[len(residentCounters)-1] * m.stride
	if place := max(m.count, m.counters); place > stat.Size || last+place+8 > stat.Size {
		return fmt.Errorf("mm_struct.rss_stat has %d bytes, too few for its counters", stat.Size)
	}
	return nil
}

// cachedPages adds up task_struct.rss_stat.count, which kernels before 6.2 add to the counters of the mm_struct after 64
// page faults (SPLIT_RSS_COUNTING, mm/memory.c).
func cachedPages(counts []byte) (sum int64) {
	for _, i := range residentCounters {
		if at := i * intBytes; at+intBytes <= uint64(len(counts)) {
			sum += int64(int32(binary.LittleEndian.Uint32(counts[at:]))) //nolint:gosec // a signed counter
		}
	}
	return sum
}

// space is what a process uses, which its threads share.
type space struct {
	vsz   uint64 // bytes
	pages int64
	err   error
}

// addMemory fills VSZ and RSS of all tasks that have an mm_struct and have not exited.
func (r *Reader) addMemory(list []Task) {
	spaces := map[mem.VirtAddr]*space{}
	parts, read := r.memory.parts(), 0
	for _, t := range list {
		if t.MM == 0 {
			continue
		}
		if spaces[t.MM] == nil {
			s := &space{}
			if s.err = r.memoryErr; s.err == nil {
				read += parts
				s.vsz, s.pages, s.err = r.memory.usage(t.MM, read)
			}
			spaces[t.MM] = s
		}
		spaces[t.MM].pages += t.cachedPages
	}
	for i := range list {
		t := &list[i]
		if s := spaces[t.MM]; s != nil && t.Flags&flagExiting == 0 && !t.State.Dead() {
			if t.MemoryError = s.err; s.err == nil {
				t.VSZ, t.RSS = s.vsz, uint64(max(s.pages, 0))<<r.k.PageShift()
			}
		}
	}
}

// parts returns how many parts the counters of a process have.
func (m *memory) parts() int {
	if m == nil || !m.perCPU || m.r.areas == nil {
		return 0
	}
	return len(m.r.areas.Possible())
}

// usage returns the bytes of address space and the pages of memory that the process with an mm_struct uses. read is how many parts of
// counters have been read with it.
func (m *memory) usage(at mem.VirtAddr, read int) (vsz uint64, pages int64, err error) {
	if read > m.maxParts {
		return 0, 0, fmt.Errorf("not counted: the processes before it took the limit of %d counters of processors", m.maxParts)
	}
	rec, err := m.space.Read(m.r.k, at)
	if err != nil {
		return 0, 0, err
	}
	var parts []mem.VirtAddr
	for _, i := range residentCounters {
		b := rec.Bytes("rss_stat")[i*m.stride:]
		pages += int64(binary.LittleEndian.Uint64(b[m.count:])) //nolint:gosec // a signed counter
		if m.perCPU {
			parts = append(parts, mem.VirtAddr(binary.LittleEndian.Uint64(b[m.counters:])))
		}
	}
	more, err := m.sum(parts)
	if err != nil {
		return 0, 0, fmt.Errorf("memory of the process with mm_struct %v: %w", at, err)
	}
	return rec.Uint("total_vm") << m.r.k.PageShift(), pages + more, nil
}

// sum adds up the parts of struct percpu_counters that the processors have: 4 bytes at each of these per-CPU addresses. The
// kernel allocates those of one process side by side since 6.6 (14ef95be6f55), so that one read per processor has all.
func (m *memory) sum(parts []mem.VirtAddr) (sum int64, err error) {
	if len(parts) == 0 {
		return 0, nil
	}
	if m.r.areas == nil {
		return 0, errors.New("the processors' parts of the counters are not known")
	}
	first, last := slices.Min(parts), slices.Max(parts)
	const near = 64 // bytes
	if last-first > near {
		for _, part := range parts {
			one, err := m.sum([]mem.VirtAddr{part})
			if err != nil {
				return 0, err
			}
			sum += one
		}
		return sum, nil
	}
	b := make([]byte, last-first+intBytes)
	for _, cpu := range m.r.areas.Possible() {
		at, _ := m.r.areas.Address(first, cpu)
		if err := m.r.k.ReadVirt(b, at); err != nil {
			return 0, err
		}
		for _, part := range parts {
			sum += int64(int32(binary.LittleEndian.Uint32(b[part-first:]))) //nolint:gosec // a signed counter
		}
	}
	return sum, nil
}

// TotalPages returns the number of page frames up to the end of memory, of which crash's %MEM is a share.
func (r *Reader) TotalPages() (uint64, error) {
	symbol, ok := r.symbols.Address("high_memory")
	if !ok {
		return 0, errors.New("the kernel's symbols lack high_memory")
	}
	end, err := r.k.ReadUint64(symbol)
	if err != nil {
		return 0, fmt.Errorf("high_memory: %w", err)
	}
	last, err := r.k.Lookup(mem.VirtAddr(end - 1))
	if err != nil {
		return 0, fmt.Errorf("high_memory: %w", err)
	}
	return uint64(last.Phys)>>r.k.PageShift() + 1, nil
}
