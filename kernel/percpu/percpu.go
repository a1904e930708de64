// Package percpu finds the processors of a crashed kernel and the copies of variables that each of them has.
//
// Symbols of per-CPU variables have no address of their own: the copy of a processor lies at the symbol's value plus
// __per_cpu_offset[cpu] (include/asm-generic/percpu.h), for all values that kernels give to such symbols: offsets from 0
// on x86_64 before 6.15 ("x86/percpu/64: Use relative percpu offsets"), addresses elsewhere. A kernel without CONFIG_SMP has one processor and no offsets.
//
// Memory is hostile input: numbers of processors are bounded. An Areas is safe for concurrent use.
package percpu

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/mem"
)

// maxCPUs is more than the largest CONFIG_NR_CPUS (8192 on x86_64 with MAXSMP).
const maxCPUs = 1 << 14

// Areas are the processors of a kernel.
type Areas struct {
	offsets  []uint64 // by processor
	possible []bool
	online   []bool
}

// ofMany are symbols of kernels for many processors alone (CONFIG_SMP), of data and of code (kernel/smp.c). Such a kernel without
// __per_cpu_offset is none for one processor, whose per-CPU variables are ordinary ones.
var ofMany = []string{"nr_cpu_ids", "smp_call_function_many"}

// Load reads nr_cpu_ids, __per_cpu_offset, __cpu_possible_mask and __cpu_online_mask.
func Load(k *kernel.Kernel, symbols types.Symbols) (*Areas, error) {
	table, ok := symbols.Address("__per_cpu_offset")
	if !ok {
		if _, data := symbols.Address("init_task"); !data {
			return nil, errors.New("the kernel's symbols lack __per_cpu_offset and init_task: it has those of code alone, or these could not be read")
		}
		for _, name := range ofMany {
			if _, many := symbols.Address(name); many {
				return nil, fmt.Errorf("the kernel's symbols lack __per_cpu_offset, but have %s: it could not be read", name)
			}
		}
		return &Areas{offsets: []uint64{0}, possible: []bool{true}, online: []bool{true}}, nil
	}
	n, err := count(k, symbols)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 8*n)
	if err := k.ReadVirt(b, table); err != nil {
		return nil, fmt.Errorf("__per_cpu_offset: %w", err)
	}
	a := &Areas{offsets: make([]uint64, n)}
	for i := range a.offsets {
		a.offsets[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	if a.possible, err = mask(k, symbols, "__cpu_possible_mask", n); err != nil {
		return nil, err
	}
	if a.online, err = mask(k, symbols, "__cpu_online_mask", n); err != nil {
		return nil, err
	}
	return a, nil
}

// count returns how many numbers of processors there are.
func count(k *kernel.Kernel, symbols types.Symbols) (int, error) {
	at, ok := symbols.Address("nr_cpu_ids")
	if !ok {
		return 0, fmt.Errorf("the kernel's symbols lack nr_cpu_ids")
	}
	n, err := k.ReadUint32(at)
	if err != nil {
		return 0, fmt.Errorf("nr_cpu_ids: %w", err)
	}
	if n == 0 || n > maxCPUs {
		return 0, fmt.Errorf("nr_cpu_ids at %v is %d, not in 1 to %d", at, n, maxCPUs)
	}
	return int(n), nil
}

// mask reads the first n bits of a struct cpumask, whose words have 64 bits.
func mask(k *kernel.Kernel, symbols types.Symbols, name string, n int) ([]bool, error) {
	at, ok := symbols.Address(name)
	if !ok {
		return nil, fmt.Errorf("the kernel's symbols lack %s", name)
	}
	b := make([]byte, (n+63)/64*8)
	if err := k.ReadVirt(b, at); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	set := make([]bool, n)
	for cpu := range set {
		set[cpu] = b[cpu/8]>>(cpu%8)&1 == 1
	}
	return set, nil
}

// Possible lists the numbers of the processors that the kernel can have, ascending. Only these have per-CPU variables.
func (a *Areas) Possible() []int {
	var list []int
	for cpu, is := range a.possible {
		if is {
			list = append(list, cpu)
		}
	}
	return list
}

// Online reports whether the kernel counts a processor as running. Some ways to panic stop the others as if they were
// taken offline (stop_this_cpu of x86_64, local_cpu_stop of arm64).
func (a *Areas) Online(cpu int) bool { return cpu >= 0 && cpu < len(a.online) && a.online[cpu] }

// Address returns where a processor has its copy of the variable with a symbol. It reports false if there is no such
// processor.
func (a *Areas) Address(symbol mem.VirtAddr, cpu int) (mem.VirtAddr, bool) {
	if cpu < 0 || cpu >= len(a.offsets) || !a.possible[cpu] {
		return 0, false
	}
	return symbol + mem.VirtAddr(a.offsets[cpu]), true
}
