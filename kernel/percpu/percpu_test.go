package percpu_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/percpu"
	"github.com/corehaul/corehaul/mem"
)

type symbols map[string]mem.VirtAddr

func (s symbols) Address(name string) (mem.VirtAddr, bool) { a, ok := s[name]; return a, ok }

// newMachine returns a machine whose processors 0, 1 and 65 of 70 are possible, and 0 and 65 online.
func newMachine() (*kerneltest.Machine, symbols) {
	m := kerneltest.NewX86(4)
	s := symbols{
		"nr_cpu_ids": m.Image(0x1000), "__cpu_possible_mask": m.Image(0x1010), "__cpu_online_mask": m.Image(0x1020),
		"__per_cpu_offset": m.Image(0x2000), "init_task": m.Image(0x3000),
	}
	m.WriteVirt(s["nr_cpu_ids"], kerneltest.Uint32(70))
	m.WriteVirt(s["__cpu_possible_mask"], append(kerneltest.Uint64(3), kerneltest.Uint64(2)...))
	m.WriteVirt(s["__cpu_online_mask"], append(kerneltest.Uint64(1), kerneltest.Uint64(2)...))
	for cpu := range 70 {
		m.WriteVirt(s["__per_cpu_offset"]+mem.VirtAddr(8*cpu), kerneltest.Uint64(uint64(cpu)<<32))
	}
	return m, s
}

func load(m *kerneltest.Machine, s symbols) (*percpu.Areas, error) {
	k, err := kernel.New(m.Config())
	if err != nil {
		return nil, err
	}
	return percpu.Load(k, s)
}

func TestAreas(t *testing.T) {
	a, err := load(newMachine())
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Possible(); !slices.Equal(got, []int{0, 1, 65}) {
		t.Errorf("possible: %v", got)
	}
	for cpu, want := range map[int]bool{-1: false, 0: true, 1: false, 65: true, 69: false, 70: false} {
		if got := a.Online(cpu); got != want {
			t.Errorf("online %d: %v", cpu, got)
		}
	}
	if got, ok := a.Address(0x1fbc0, 65); !ok || got != 65<<32+0x1fbc0 {
		t.Errorf("address on CPU 65: %v, %v", got, ok)
	}
	for _, cpu := range []int{-1, 2, 70} {
		if got, ok := a.Address(0x1fbc0, cpu); ok {
			t.Errorf("address on CPU %d: %v", cpu, got)
		}
	}
}

func TestOneProcessor(t *testing.T) {
	m, s := newMachine()
	delete(s, "__per_cpu_offset")
	delete(s, "nr_cpu_ids")
	a, err := load(m, s)
	if err != nil || !slices.Equal(a.Possible(), []int{0}) || !a.Online(0) {
		t.Fatalf("got %+v, %v", a, err)
	}
	if got, ok := a.Address(0xffffffff81000000, 0); !ok || got != 0xffffffff81000000 {
		t.Errorf("address: %v, %v", got, ok)
	}
}

func TestDamaged(t *testing.T) {
	for name, change := range map[string]func(m *kerneltest.Machine, s symbols){
		"nr_cpu_ids":                            func(_ *kerneltest.Machine, s symbols) { delete(s, "nr_cpu_ids") },
		"is 4294967295":                         func(m *kerneltest.Machine, s symbols) { m.WriteVirt(s["nr_cpu_ids"], kerneltest.Uint32(1<<32-1)) },
		"is 0":                                  func(m *kerneltest.Machine, s symbols) { m.WriteVirt(s["nr_cpu_ids"], kerneltest.Uint32(0)) },
		"__cpu_possible_mask":                   func(_ *kerneltest.Machine, s symbols) { s["__cpu_possible_mask"] = 8 },
		"__cpu_online_mask":                     func(_ *kerneltest.Machine, s symbols) { delete(s, "__cpu_online_mask") },
		"__per_cpu_offset":                      func(_ *kerneltest.Machine, s symbols) { s["__per_cpu_offset"] = 8 },
		"have nr_cpu_ids: it could not be read": func(_ *kerneltest.Machine, s symbols) { delete(s, "__per_cpu_offset") },
		"have smp_call_function_many: it could not be read": func(m *kerneltest.Machine, s symbols) {
			delete(s, "__per_cpu_offset")
			delete(s, "nr_cpu_ids")
			s["smp_call_function_many"] = m.Image(0x400)
		},
		"init_task": func(_ *kerneltest.Machine, s symbols) { clear(s) },
	} {
		m, s := newMachine()
		change(m, s)
		if a, err := load(m, s); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, %v", name, a, err)
		}
	}
}
