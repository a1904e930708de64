package unwind_test

import (
	"debug/elf"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
)

// text writes a trace in short: the functions with the first letters of the methods, and the end.
func text(tr unwind.Trace) string {
	var b strings.Builder
	for _, f := range tr.Frames {
		name := fmt.Sprintf("%v", f.IP)
		if kerneltest.X86Text <= f.IP && f.IP < function(200) {
			name = fmt.Sprint(int(f.IP-kerneltest.X86Text) / 64)
		}
		fmt.Fprintf(&b, "%s:%s ", name, f.Found)
	}
	return b.String() + tr.End
}

// calls writes the stack of a task: function 1 was called by 2, 2 by 3, and so on to last, where the stack ends.
func calls(m *kerneltest.Machine, end mem.VirtAddr, first, last int) mem.VirtAddr {
	for i := last - 1; i >= first; i-- {
		end = push(m, end, frame(0xb0+mem.VirtAddr(i), i+1)...)
	}
	return end
}

// TestCalls walks through calls only, with every layout of ORC.
func TestCalls(t *testing.T) {
	for name, form := range kerneltest.ORCForms {
		m := x86Machine(form, special(5, kerneltest.ORCEntry{Type: "end"}))
		sp := calls(m, stack, 1, 5)
		tr := unwinder(t, m, nil).Unwind(0, registers(function(1)+body, sp, 0))
		if got, want := text(tr), "1:registers 2:orc 3:orc 4:orc 5:orc end of stack"; got != want || !tr.Complete {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		for i, f := range tr.Frames[1:] {
			if want := sp + mem.VirtAddr(32*i+24); f.At != want || f.SP != want+8 || !f.Return || f.Regs != nil {
				t.Errorf("%s: frame %d is %+v, want it at %v", name, i+1, f, want)
			}
		}
	}
}

// TestEveryBase walks through a frame for each way in which an entry gives the frame before.
func TestEveryBase(t *testing.T) {
	at := stack - 0x100 // the frame before, whose return address is just below
	for _, tc := range []struct {
		entry kerneltest.ORCEntry
		form  kerneltest.ORCForm
		bp    mem.VirtAddr
		set   int // number of the register that is at
	}{
		{kerneltest.ORCEntry{SP: "sp", SPOffset: 0x80}, kerneltest.ORC4_14, 0, -1},
		{kerneltest.ORCEntry{SP: "bp", SPOffset: 16}, kerneltest.ORC4_14, at - 16, -1},
		{kerneltest.ORCEntry{SP: "bp", SPOffset: 16}, kerneltest.ORC7_1, at - 16, -1},
		{kerneltest.ORCEntry{SP: "sp-indirect", SPOffset: 8}, kerneltest.ORC6_4, 0, -1},
		{kerneltest.ORCEntry{SP: "bp-indirect", SPOffset: 8}, kerneltest.ORC6_4, at - 0x88, -1},
		{kerneltest.ORCEntry{SP: "bp-indirect", SPOffset: 8}, kerneltest.ORC7_1, at - 0x88, -1},
		{kerneltest.ORCEntry{SP: "dx"}, kerneltest.ORC6_4, 0, 12},
		{kerneltest.ORCEntry{SP: "di"}, kerneltest.ORC7_1, 0, 14},
		{kerneltest.ORCEntry{SP: "r10"}, kerneltest.ORC6_4, 0, 7},
		{kerneltest.ORCEntry{SP: "r13"}, kerneltest.ORC6_3, 0, 2},
		{kerneltest.ORCEntry{SP: "ax"}, kerneltest.ORC7_1, 0, 10},
	} {
		m := x86Machine(tc.form, special(1, tc.entry), special(2, kerneltest.ORCEntry{Type: "end"}))
		push(m, at, uint64(function(2)+body))
		value := at
		if tc.entry.SP == "sp-indirect" {
			value = at - 8
		}
		push(m, at-0x78, uint64(value)) // at the stack pointer: for the indirect ones
		r := registers(function(1)+body, at-0x80, tc.bp)
		if tc.set >= 0 {
			r.Values[tc.set] = uint64(at)
		}
		if got, want := text(unwinder(t, m, nil).Unwind(0, r)), "1:registers 2:orc end of stack"; got != want {
			t.Errorf("%+v: got %s, want %s", tc.entry, got, want)
		}
	}
}

// TestInterrupts walks from an interrupt stack through pt_regs to the interrupted task, and through an iret frame to user mode.
func TestInterrupts(t *testing.T) {
	for name, form := range kerneltest.ORCForms {
		m := x86Machine(form,
			special(4, kerneltest.ORCEntry{SP: "sp", SPOffset: 8, Type: "regs"}),
			special(7, kerneltest.ORCEntry{SP: "sp", SPOffset: 16, Type: "iret"}))
		user := push(m, stack, 0x401000, userCS, 0x202, 0x7ffff000, 0x2b) // what the CPU pushed on entry
		task := calls(m, user-16, 5, 7)
		regs := push(m, irqStack, ptRegs(function(5)+body, task, 0xb0b, kernelCS)...)
		tr := unwinder(t, m, nil).Unwind(0, registers(function(3)+body, calls(m, regs-8, 3, 4), 0))
		if got, want := text(tr), "3:registers 4:orc 5:registers 6:orc 7:orc 0000000000401000:registers user mode"; got != want || !tr.Complete {
			t.Errorf("%s: got %s, want %s", name, got, want)
			continue
		}
		if f := tr.Frames[2]; f.Return || f.SP != task || f.Regs.FP() != 0xb0b || f.Regs.User() || f.Regs.First != 0 {
			t.Errorf("%s: interrupted frame %+v", name, f)
		}
		if f := tr.Frames[5]; f.SP != 0x7ffff000 || !f.Regs.User() || f.Regs.First != 16 || f.At != user {
			t.Errorf("%s: user frame %+v", name, f)
		}
	}
}

// TestCodeWithoutORC walks where there is no entry.
func TestCodeWithoutORC(t *testing.T) {
	sp := stack - 0x80
	for _, tc := range []struct {
		name string
		ip   mem.VirtAddr
		code string // before the return address at the stack pointer
		want string
	}{
		{"call through NULL", 0, "", "0000000000000000:registers 2:orc end of stack"},
		{"call through a wild pointer", 0x123456789, "\xff\x54\x24\x08", "0000000123456789:registers 2:guess end of stack"},
		{"call of data of a module", moduleCode, "\xe8\x00\x00\x00\x00", "ffffffffc0001000:registers 2:guess end of stack"},
		{"no call", 0x123456789, "\xff\x74\x24\x08", "0000000123456789:registers 0000000123456789 is in no code that ORC knows"},
		{"code of BPF", moduleCode, "", "ffffffffc0001000:registers 3:frame pointer end of stack"},
	} {
		m := x86Machine(kerneltest.ORC6_4, special(2, kerneltest.ORCEntry{Type: "end"}), special(3, kerneltest.ORCEntry{Type: "end"}))
		m.WriteVirt(function(2)+body-mem.VirtAddr(len(tc.code)), []byte(tc.code))
		push(m, sp+8, uint64(function(2)+body))
		push(m, sp+0x48, 0xb0b, uint64(function(3)+body)) // a frame pointer leads here
		if got := text(unwinder(t, m, nil).Unwind(0, registers(tc.ip, sp, sp+0x38))); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestBehindGuess: what depends on a guess is one too.
func TestBehindGuess(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4, special(8, kerneltest.ORCEntry{Type: "end"}))
	m.WriteVirt(function(6)+body-5, []byte{0xe8})
	sp := push(m, calls(m, stack, 6, 8), uint64(function(6)+body))
	if got, want := text(unwinder(t, m, nil).Unwind(0, registers(0x1234, sp, 0))), "0000000000001234:registers 6:guess 7:guess 8:guess end of stack"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestTracedReturn: where a tracer replaced the return address, nothing is known of the frame before, and no other function is named.
func TestTracedReturn(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4, kerneltest.ORCEntry{IP: function(155) - 1, Type: "end"}) // as before 6.3
	sp := push(m, calls(m, stack, 4, 6), 1, 2, 0xb0b, uint64(function(155)))
	tr := unwinder(t, m, nil).Unwind(0, registers(function(1)+body, sp, 0))
	if got, want := text(tr), "1:registers 155:orc return_to_handler is in the place of a return address: "; !strings.HasPrefix(got, want) || tr.Complete || tr.Frames[1].Return {
		t.Errorf("got %s, want %s, %+v", got, want, tr.Frames)
	}
}

// kept has the return addresses that tracers took, by task and place.
type kept map[[2]mem.VirtAddr][]mem.VirtAddr

func (k kept) Probed(task, frame mem.VirtAddr) []mem.VirtAddr {
	return k[[2]mem.VirtAddr{task, frame}]
}

func (k kept) Graphed(_, _ mem.VirtAddr) (mem.VirtAddr, bool) { return 0, false }

// graphed has what the function graph tracer has of every place besides.
type graphed struct {
	kept
	address mem.VirtAddr
}

func (g graphed) Graphed(_, _ mem.VirtAddr) (mem.VirtAddr, bool) { return g.address, g.address != 0 }

// TestGraphedReturn: what the function graph tracer kept may be of an earlier call of the same place. It counts only if the tracer's code
// is there, or was when a kretprobe came.
func TestGraphedReturn(t *testing.T) {
	const graph, probe = 155, 156
	for _, tc := range []struct {
		in      int // function in the place of the return address
		probed  []mem.VirtAddr
		graphed mem.VirtAddr
		want    string
	}{
		{graph, nil, function(4) + body, "1:registers 4:tracer 5:orc 6:orc end of stack"},
		{graph, nil, 0, "1:registers 155:orc return_to_handler is in the place "},
		{probe, nil, function(4) + body, "1:registers 156:orc kretprobe_trampoline is in the place "}, // the probe's list cannot be read
		{probe, []mem.VirtAddr{function(4) + body}, function(9) + body, "1:registers 4:tracer 5:orc 6:orc end of stack"},
		{probe, []mem.VirtAddr{function(graph)}, function(4) + body, "1:registers 4:tracer 5:orc 6:orc end of stack"},
		{probe, []mem.VirtAddr{0x1234}, function(4) + body, "1:registers 156:orc kretprobe_trampoline is in the place "},
	} {
		m := x86Machine(kerneltest.ORC6_4, special(6, kerneltest.ORCEntry{Type: "end"}))
		sp := push(m, calls(m, stack, 4, 6), 1, 2, 0xb0b, uint64(function(tc.in)))
		u := unwinderFrom(t, m, unwind.Sources{Returns: graphed{kept{{0x500, sp + 24}: tc.probed}, tc.graphed}})
		if got := text(u.Unwind(0x500, registers(function(1)+body, sp, 0))); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%+v: got %s", tc, got)
		}
	}
}

// TestKeptReturn goes on with the return address that a tracer kept of this place and this task, if it is one.
func TestKeptReturn(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4, special(6, kerneltest.ORCEntry{Type: "end"}))
	sp := push(m, calls(m, stack, 4, 6), 1, 2, 0xb0b, uint64(function(155)))
	place := sp + 24
	for _, tc := range []struct {
		task  mem.VirtAddr
		place mem.VirtAddr
		kept  []mem.VirtAddr
		want  string
	}{
		{0x500, place, []mem.VirtAddr{function(4) + body}, "1:registers 4:tracer 5:orc 6:orc end of stack"},
		{0x500, place, []mem.VirtAddr{function(155), 0x1234, function(4) + body, function(9)}, "1:registers 4:tracer 5:orc 6:orc end of stack"},
		{0x500, place, []mem.VirtAddr{function(155), 0x1234}, "1:registers 155:orc return_to_handler is in the place "},
		{0x500, place + 8, []mem.VirtAddr{function(4) + body}, "1:registers 155:orc return_to_handler is in the place "},
		{0, place, []mem.VirtAddr{function(4) + body}, "1:registers 155:orc return_to_handler is in the place "},
	} {
		u := unwinderFrom(t, m, unwind.Sources{Returns: kept{{tc.task, tc.place}: tc.kept}})
		tr := u.Unwind(tc.task, registers(function(1)+body, sp, 0))
		if got := text(tr); !strings.HasPrefix(got, tc.want) || tr.Complete != strings.HasSuffix(tc.want, "end of stack") {
			t.Errorf("%+v: got %s", tc, got)
		}
	}
}

// bpf is generated code at addresses of modules, of a BPF program if its value is set.
type bpf map[mem.VirtAddr]bool

func (b bpf) Contains(a mem.VirtAddr) bool          { _, ok := b[a&^0xfff]; return ok }
func (b bpf) KeepsFramePointer(a mem.VirtAddr) bool { return b[a&^0xfff] }

// TestBPF: a program that called keeps a frame pointer. One that was interrupted may not have set it yet.
func TestBPF(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4, special(2, kerneltest.ORCEntry{Type: "end"}))
	inProgram := stack - 0x40
	push(m, inProgram+16, 0, uint64(function(2)+body))
	sp := push(m, inProgram-0x20, 1, 2, uint64(inProgram), uint64(moduleCode+0x20))
	for _, tc := range []struct {
		code bpf
		ip   mem.VirtAddr
		want string
	}{
		{bpf{moduleCode &^ 0xfff: true}, function(1) + body, "1:registers ffffffffc0001020:orc 2:bpf end of stack"},
		{bpf{moduleCode &^ 0xfff: false}, function(1) + body, "1:registers ffffffffc0001020:orc 2:frame pointer end of stack"},
		{nil, function(1) + body, "1:registers ffffffffc0001020:orc 2:frame pointer end of stack"},
		{bpf{moduleCode &^ 0xfff: true}, moduleCode + 0x18, "ffffffffc0001018:registers 2:frame pointer end of stack"},
	} {
		u := unwinderFrom(t, m, unwind.Sources{Generated: tc.code})
		if got := text(u.Unwind(0, registers(tc.ip, sp, inProgram))); got != tc.want {
			t.Errorf("%v: got %s, want %s", tc.code, got, tc.want)
		}
	}
}

// TestFtraceTrampoline takes the ORC of the code of which a trampoline is a copy.
func TestFtraceTrampoline(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4, special(2, kerneltest.ORCEntry{Type: "end"}))
	m.Map(moduleCode, m.Alloc(0x1000), 0x1000, 12)
	original := []byte("what saves the registers of the function that is traced")
	m.WriteVirt(function(160), original)
	m.WriteVirt(moduleCode+0x40, original)
	for _, tc := range []struct {
		trampoline mem.VirtAddr
		want       string
	}{
		{moduleCode + 0x40, "1:registers ffffffffc0001065:orc 2:orc end of stack"},
		{moduleCode + 0x80, "1:registers ffffffffc00010a5:orc the return address "}, // no copy
	} {
		sp := push(m, push(m, stack-0x40, frame(stack-0x30, 2)...), 1, 2, uint64(stack-0x30), uint64(tc.trampoline+body+5))
		if got := text(unwinder(t, m, nil).Unwind(0, registers(function(1)+body, sp, 0))); !strings.HasPrefix(got, tc.want) {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

// TestCallSite finds the caller of a function without ORC by its call, and rbp by the function's pushes.
func TestCallSite(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4, kerneltest.ORCEntry{IP: function(1) + 1, Type: "undefined"}, special(1, kerneltest.ORCEntry{Type: "undefined"}),
		special(2, kerneltest.ORCEntry{SP: "bp", SPOffset: 16}), special(3, kerneltest.ORCEntry{Type: "end"}))
	m.WriteVirt(function(1), []byte("\xf3\x0f\x1e\xfa\x0f\x1f\x44\x00\x00\x41\x57\x41\x56\x55\x53\x48")) // endbr64; nop; push r15, r14, rbp, rbx
	call := func(from, to int) {
		m.WriteVirt(function(from)+body-5, append([]byte{0xe8}, kerneltest.Uint32(uint32(function(to)-function(from)-body))...))
	}
	call(2, 1)
	call(9, 8) // another call, of another function
	base := push(m, stack, 0, uint64(function(3)+body))
	sp := push(m, base, uint64(function(9)+body), 0xbb, uint64(base), 0x14, 0x15, uint64(function(2)+body))
	tr := unwinder(t, m, nil).Unwind(0, registers(function(1)+body, sp, 0))
	if got, want := text(tr), "1:registers 2:call site 3:orc end of stack"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// It called a function that never returns, so the return address is that of the function behind it.
	noreturn := push(m, sp, 1, 2, 3, uint64(function(2)))
	if got, want := text(unwinder(t, m, nil).Unwind(0, registers(function(30)+body, noreturn, 0))), "30:registers 2:orc 2:call site 3:orc end of stack"; got != want {
		t.Errorf("behind a call that never returns: got %s, want %s", got, want)
	}
}

// TestSwitchedTask starts where a task gave up the CPU.
func TestSwitchedTask(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4, special(4, kerneltest.ORCEntry{Type: "end"}), kerneltest.ORCEntry{IP: function(150) - 1, Type: "undefined"})
	u := unwinder(t, m, nil)
	sp := push(m, calls(m, stack, 2, 4), 15, 14, 13, 12, 0xbb, 0xb0b, uint64(function(2)+body))
	if got, want := text(u.UnwindSwitched(0, sp, 0, 0)), "2:registers 3:orc 4:orc end of stack"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	sp = push(m, stack, 15, 14, 13, 12, 0xbb, 0xb0b, uint64(function(150)), uint64(function(4)+body))
	if got, want := text(u.UnwindSwitched(0, sp, 0, 0)), "150:registers 4:orc end of stack"; got != want {
		t.Errorf("a task that never ran: got %s, want %s", got, want)
	}
	sp = push(m, calls(m, stack, 2, 4), 0x2, 15, 14, 13, 12, 0xbb, 0xb0b, uint64(function(2)+body))
	if got, want := text(u.UnwindSwitched(0, sp, 0, 0)), "2:registers 3:orc 4:orc end of stack"; got != want {
		t.Errorf("with flags: got %s, want %s", got, want)
	}
	if tr := u.UnwindSwitched(0, irqStack-0x100, 0, 0); len(tr.Frames) > 0 || tr.Complete || tr.End == "" {
		t.Errorf("no task: got %+v", tr)
	}
}

// oneModule is a module with a table.
type oneModule struct {
	start, end mem.VirtAddr
	table      unwind.ORCTable
}

func (o *oneModule) ORC(a mem.VirtAddr) (unwind.ORCTable, bool) {
	return o.table, o.start <= a && a < o.end
}

func TestModule(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4, special(2, kerneltest.ORCEntry{Type: "end"}))
	ips, table, _ := m.SetORC(m.Image(0x1f0000), kerneltest.ORC6_4, []kerneltest.ORCEntry{
		{IP: moduleCode, SP: "sp", SPOffset: 8}, {IP: moduleCode + 4, SP: "sp", SPOffset: 0x20}, {IP: moduleCode + 0x80, Type: "undefined"},
	})
	module := &oneModule{moduleCode - 0x100, moduleCode + 0x100, unwind.ORCTable{IPs: ips, Entries: table, Count: 3}}
	u := unwinder(t, m, module)
	called := push(m, stack, uint64(function(2)+body)) // without a frame
	m.WriteVirt(function(2)+body-2, []byte{0xff, 0xd0})
	sp := push(m, stack-0x40, frame(0, 2)...)
	for _, tc := range []struct {
		ip, sp mem.VirtAddr
		want   string
	}{
		{moduleCode + 9, sp, "ffffffffc0001009:registers 2:orc end of stack"},
		{moduleCode + 0x90, called, "ffffffffc0001090:registers 2:guess end of stack"}, // data behind the code
		{moduleCode - 0x90, called, "ffffffffc0000f70:registers 2:guess end of stack"}, // data before it
		{moduleCode + 0x90, sp, "ffffffffc0001090:registers ORC knows nothing of the frame before ffffffffc0001090"},
	} {
		if got := text(u.Unwind(0, registers(tc.ip, tc.sp, 0))); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

// TestCutTraces: a trace that cannot go on says why.
func TestCutTraces(t *testing.T) {
	loop := special(6, kerneltest.ORCEntry{SP: "bp", SPOffset: 16, BP: "prev-sp", BPOffset: -16})
	m := x86Machine(kerneltest.ORC6_4, loop, special(7, kerneltest.ORCEntry{SP: "wrong", SPOffset: 8}), special(8, kerneltest.ORCEntry{SP: "r10"}))
	push(m, stack, uint64(stack-16), uint64(function(6)+body)) // a frame pointer that points to itself
	sp := push(m, stack-0x40, frame(0, 8)...)
	smashed := push(m, stack-0x80, 0, 0, 0, 0x7878787878787878)
	u := unwinder(t, m, nil)
	for _, tc := range []struct {
		ip, sp, bp mem.VirtAddr
		want       string
	}{
		{function(6) + body, stack - 0x100, stack - 16, "6:registers 6:orc the stack leads to ffffc90000003ff8 again"},
		{function(7) + body, sp, 0, "7:registers the ORC entry for ffffffff810001e0 has no register that is known"},
		{function(5) + body, sp, 0, "5:registers 8:orc the frame before ffffffff81000220 is known from register r10, which is not known"},
		{function(5) + body, sp + 4, 0, "5:registers the stack pointer ffffc90000003fbc is not aligned"},
		{function(5) + body, stack, 0, "5:registers the stack cannot be read: "},
		{0x1234, irqStack, 0, "0000000000001234:registers 0000000000001234 is in no code that ORC knows"},
		{function(5) + body, smashed, 0, "5:registers the return address 7878787878787878 at ffffc90000003f78 is in no code"},
	} {
		tr := u.Unwind(0, registers(tc.ip, tc.sp, tc.bp))
		if got := text(tr); !strings.HasPrefix(got, tc.want) || tr.Complete {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

// TestUnsortedORC: an entry that is out of order is noticed where it matters.
func TestUnsortedORC(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4)
	u := unwinder(t, m, nil)
	m.WriteVirt(m.Image(orcAt+4*33), kerneltest.Uint32(0x80000000)) // the entry behind those of function 10
	if got, want := text(u.Unwind(0, registers(function(10)+body, calls(m, stack, 10, 12), 0))), "not sorted"; !strings.Contains(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestDeepStack: the number of frames is limited.
func TestDeepStack(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4)
	words := make([]uint64, 0x3000/8)
	for i := range words {
		words[i] = uint64(function(1) + 1)
	}
	r := registers(function(1), push(m, stack, words...), 0)
	if tr := unwinder(t, m, nil).Unwind(0, r); len(tr.Frames) != 1024 || tr.Complete {
		t.Errorf("%d frames, %s", len(tr.Frames), tr.End)
	}
}

// TestNoUnwinder: what is missing is named.
func TestNoUnwinder(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4)
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := kallsyms.Load(k)
	if err != nil {
		t.Fatal(err)
	}
	m.WriteVirt(m.Image(orcAt), []byte(strings.Repeat("junk", 0x4000)))
	if u, err := unwind.New(k, symbols, unwind.Sources{}); u != nil || !errors.Is(err, unwind.ErrUnsupported) || !strings.Contains(err.Error(), "unknown layout") {
		t.Errorf("with junk: got %v, %v", u, err)
	}
	cfg := m.Config()
	cfg.Machine = elf.EM_RISCV
	other, err := kernel.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := unwind.New(other, symbols, unwind.Sources{}); u != nil || !errors.Is(err, unwind.ErrUnsupported) {
		t.Errorf("on another machine: got %v, %v", u, err)
	}
}

// withoutORC are symbols of a kernel that has no ORC tables.
type withoutORC struct{ *kallsyms.Table }

func (w withoutORC) Address(name string) (mem.VirtAddr, bool) {
	if strings.Contains(name, "orc") {
		return 0, false
	}
	return w.Table.Address(name)
}

// largeImage are symbols of a kernel image that covers the start of the area of modules.
type largeImage struct{ *kallsyms.Table }

func (l largeImage) Address(name string) (mem.VirtAddr, bool) {
	if name == "_end" {
		return moduleCode + 0x100, true
	}
	return l.Table.Address(name)
}

// TestDataOfLargeImage: data of a kernel image at a high address is no code that was made at run time.
func TestDataOfLargeImage(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4)
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := kallsyms.Load(k)
	if err != nil {
		t.Fatal(err)
	}
	u, err := unwind.New(k, largeImage{symbols}, unwind.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[mem.VirtAddr]string{
		moduleCode:         "1:registers the return address ffffffffc0001000 at ",
		moduleCode + 0x100: "1:registers ffffffffc0001100:orc ",
	} {
		sp := push(m, stack, 1, 2, 0xb0b, uint64(address))
		if got := text(u.Unwind(0, registers(function(1)+body, sp, 0))); !strings.HasPrefix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestFramePointers walks the stack of a kernel without ORC, through an exception.
func TestFramePointers(t *testing.T) {
	m := x86Machine(kerneltest.ORC6_4)
	for i := range 10 {
		m.WriteVirt(function(i)+body-5, []byte{0xe8})
	}
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := kallsyms.Load(k)
	if err != nil {
		t.Fatal(err)
	}
	u, err := unwind.New(k, withoutORC{symbols}, unwind.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	user := push(m, stack, ptRegs(0x401000, 0x7ffff000, 0, userCS)...)
	outer := push(m, user-0x20, uint64(user)|1, uint64(function(4)+body))
	regs := push(m, outer-0x20, ptRegs(function(3)+body, outer, outer, kernelCS)...)
	inner := push(m, regs-0x20, uint64(regs)|1, uint64(function(2)+body))
	thread := push(m, irqStack, make([]uint64, 21)...)
	syscall := push(m, thread-0x40, 0, uint64(function(6)+body)) // rbp was cleared on entry
	for _, tc := range []struct {
		fp   mem.VirtAddr
		want string
	}{
		{inner, "1:registers 2:frame pointer 3:registers 4:frame pointer 0000000000401000:registers user mode"},
		{thread | 1, "1:registers end of stack"},
		{0, "1:registers the frame pointer is 0, "},
		{syscall, "1:registers 6:frame pointer end of stack"},
		{inner + 8, "1:registers no return address is at "},
		{inner + 4, "1:registers the stack pointer "},
		{stack, "1:registers the stack cannot be read: "},
		{stack | 1, "1:registers the stack cannot be read: "},
	} {
		tr := u.Unwind(0, registers(function(1)+body, inner-0x20, tc.fp))
		if got := text(tr); !strings.HasPrefix(got, tc.want) || tr.Complete != (strings.HasSuffix(got, "end of stack") || strings.HasSuffix(got, "user mode")) {
			t.Errorf("got %s, %v, want %s", got, tr.Complete, tc.want)
		}
	}
	fresh := push(m, stack, 15, 14, 13, 12, 0xbb, uint64(thread|1), uint64(function(150)))
	if tr := u.UnwindSwitched(0, fresh, 0, 0); text(tr) != "150:registers end of stack" || tr.Frames[0].Return {
		t.Errorf("a task that never ran: got %s, %+v", text(tr), tr.Frames)
	}
}

// FuzzORC changes entries, their addresses and the stack. Whatever they say, a walk ends and says why.
func FuzzORC(f *testing.F) {
	forms := []kerneltest.ORCForm{kerneltest.ORC4_14, kerneltest.ORC6_3, kerneltest.ORC6_4, kerneltest.ORC7_1}
	for i := range forms {
		f.Add(uint8(i), uint16(0), []byte{}, []byte{}, uint16(1))
		f.Add(uint8(i), uint16(4*600+6*31), []byte{0x10, 0, 0xf0, 0xff, 0x14, 0x02}, []byte(strings.Repeat("\x20\x02\x00\x81\xff\xff\xff\xff", 40)), uint16(0x2a0))
		f.Add(uint8(i), uint16(4*600+6*31), []byte{0x10, 0, 0, 0, 0x05, 0x03}, []byte(strings.Repeat("\x00\x3f\x00\x00\x00\xc9\xff\xff", 40)), uint16(0x2a0))
	}
	f.Fuzz(func(t *testing.T, form uint8, offset uint16, orc, words []byte, ip uint16) {
		m := x86Machine(forms[int(form)%len(forms)])
		sp := calls(m, stack, 1, 30)
		m.WriteVirt(m.Image(orcAt+uint64(offset)), orc)
		m.WriteVirt(sp, words[:min(len(words), int(stack-sp))])
		k, err := kernel.New(m.Config())
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := kallsyms.Load(k)
		if err != nil {
			return
		}
		u, err := unwind.New(k, symbols, unwind.Sources{})
		if (u == nil) != (err != nil) {
			t.Fatalf("got %v and %v", u, err)
		}
		if err != nil {
			return
		}
		for _, tr := range []unwind.Trace{u.Unwind(0, registers(m.Image(uint64(ip)), sp, sp+64)), u.UnwindSwitched(0, sp, 0, 0)} {
			if tr.End == "" || len(tr.Frames) > 1024 {
				t.Errorf("%d frames, end %q", len(tr.Frames), tr.End)
			}
		}
	})
}
