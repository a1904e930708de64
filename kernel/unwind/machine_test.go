package unwind_test

import (
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
)

// Places in the machines of these tests.
const (
	codeSize   = 0x10000 // _stext to _etext
	orcAt      = 0x100000
	symbolsAt  = 0x180000
	stack      = mem.VirtAddr(0xffffc90000004000) // the end of a task's stack
	irqStack   = mem.VirtAddr(0xffffc90000002000) // of an interrupt stack below it
	stackSpace = mem.VirtAddr(0xffffc90000000000)
	moduleCode = mem.VirtAddr(0xffffffffc0001000)
)

// function returns the address of a function of 64 bytes. Its ORC is that of code with a frame of 32 bytes, in which rbp is saved.
func function(i int) mem.VirtAddr { return kerneltest.X86Text + mem.VirtAddr(64*i) }

const body = 0x20 // of a function: where its frame is complete

// x86Machine is an x86_64 machine with 200 functions and the extra entries.
func x86Machine(form kerneltest.ORCForm, extra ...kerneltest.ORCEntry) *kerneltest.Machine {
	m := kerneltest.NewX86(4)
	m.Map(stackSpace, m.Alloc(0x4000), 0x4000, 12)
	var entries []kerneltest.ORCEntry
	symbols := []kerneltest.KernelSymbol{
		{Name: "_stext", Addr: m.Image(0), Type: 'T'},
		{Name: "_etext", Addr: m.Image(codeSize), Type: 'T'},
		{Name: "_end", Addr: m.Image(0x3f0000), Type: 'B'},
		{Name: "swapper_pg_dir", Addr: m.Image(0x200000), Type: 'D'},
	}
	for i := range 200 {
		symbols = append(symbols, kerneltest.KernelSymbol{Name: "f", Addr: function(i), Type: 't'})
		entries = append(entries,
			kerneltest.ORCEntry{IP: function(i), SP: "sp", SPOffset: 8},
			kerneltest.ORCEntry{IP: function(i) + 1, SP: "sp", SPOffset: 16, BP: "prev-sp", BPOffset: -16},
			kerneltest.ORCEntry{IP: function(i) + 8, SP: "sp", SPOffset: 32, BP: "prev-sp", BPOffset: -16})
	}
	ips, table, end := m.SetORC(m.Image(orcAt), form, append(entries, extra...))
	symbols = append(symbols,
		kerneltest.KernelSymbol{Name: "__start_orc_unwind_ip", Addr: ips, Type: 'R'}, kerneltest.KernelSymbol{Name: "__stop_orc_unwind_ip", Addr: table, Type: 'R'},
		kerneltest.KernelSymbol{Name: "__start_orc_unwind", Addr: table, Type: 'R'}, kerneltest.KernelSymbol{Name: "__stop_orc_unwind", Addr: end, Type: 'R'},
		kerneltest.KernelSymbol{Name: "ret_from_fork", Addr: function(150), Type: 'T'},
		kerneltest.KernelSymbol{Name: "return_to_handler", Addr: function(155), Type: 'T'},
		kerneltest.KernelSymbol{Name: "kretprobe_trampoline", Addr: function(156), Type: 'T'},
		kerneltest.KernelSymbol{Name: "ftrace_caller", Addr: function(160), Type: 'T'},
		kerneltest.KernelSymbol{Name: "ftrace_call", Addr: function(160) + body, Type: 'T'})
	m.SetKallsyms(m.Image(symbolsAt), kerneltest.KallsymsForms()["6.1"], symbols)
	return m
}

// special is an entry for the body of a function.
func special(i int, e kerneltest.ORCEntry) kerneltest.ORCEntry {
	e.IP = function(i) + body - 1
	return e
}

// push writes words that end at an address. It returns the address of the first.
func push(m *kerneltest.Machine, end mem.VirtAddr, words ...uint64) mem.VirtAddr {
	at := end - mem.VirtAddr(8*len(words))
	for i, w := range words {
		m.WriteVirt(at+mem.VirtAddr(8*i), kerneltest.Uint64(w))
	}
	return at
}

// frame are the words of the stack frame of a function whose body was left: two locals, rbp, and the return address to a caller.
func frame(bp mem.VirtAddr, caller int) []uint64 {
	return []uint64{1, 2, uint64(bp), uint64(function(caller) + body)}
}

// ptRegs are the words of a struct pt_regs of x86_64. Registers without a value of their own are 0x100 plus their number.
func ptRegs(ip, sp, bp mem.VirtAddr, cs uint64) []uint64 {
	words := make([]uint64, 21)
	for i := range words {
		words[i] = 0x100 + uint64(i)
	}
	words[4], words[16], words[17], words[19] = uint64(bp), uint64(ip), cs, uint64(sp)
	return words
}

const kernelCS, userCS = 0x10, 0x33

// registers are those of a CPU in the body of a function.
func registers(ip, sp, bp mem.VirtAddr) *unwind.Registers {
	var b []byte
	for _, w := range ptRegs(ip, sp, bp, kernelCS) {
		b = append(b, kerneltest.Uint64(w)...)
	}
	r, err := unwind.ParseRegisters(62, b)
	if err != nil {
		panic(err)
	}
	return r
}

func unwinder(t *testing.T, m *kerneltest.Machine, modules unwind.Modules) *unwind.Unwinder {
	t.Helper()
	return unwinderFrom(t, m, unwind.Sources{Modules: modules})
}

func unwinderFrom(t *testing.T, m *kerneltest.Machine, from unwind.Sources) *unwind.Unwinder {
	t.Helper()
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := kallsyms.Load(k)
	if err != nil {
		t.Fatal(err)
	}
	u, err := unwind.New(k, symbols, from)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
