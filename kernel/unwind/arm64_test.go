package unwind_test

import (
	"debug/elf"
	"testing"

	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
)

// armStack is the end of a stack of an arm64 machine.
const armStack = mem.VirtAddr(0xffff800080004000)

// signature are the bits of a signed address (GENMASK_ULL(63, vabits_actual)). In a kernel address all of them are set, in a signed
// one all but bit 55 may be anything.
const signature = 0xffff_0000_0000_0000

func armMachine() *kerneltest.Machine { return armMachinePages(12) }

// armMachinePages is a machine with pages of 1<<shift bytes.
func armMachinePages(shift uint) *kerneltest.Machine {
	m := kerneltest.NewARM64Pages(shift, 48, 48)
	m.Numbers["KERNELPACMASK"] = -1 << 48 // signature as the bits of a signed number
	size := uint64(max(0x4000, m.PageSize()))
	m.Map(armStack-0x4000, m.Alloc(size), size, shift)
	m.SetKallsyms(m.Image(symbolsAt), kerneltest.KallsymsForms()["6.1, base-relative"], []kerneltest.KernelSymbol{
		{Name: "_stext", Addr: m.Image(0), Type: 'T'},
		{Name: "ret_from_fork", Addr: m.Image(0x800), Type: 'T'},
		{Name: "vectors", Addr: m.Image(0x900), Type: 'T'},
		{Name: "return_to_handler", Addr: m.Image(0xa00), Type: 'T'},
		{Name: "_etext", Addr: m.Image(codeSize), Type: 'T'},
		{Name: "_end", Addr: m.Image(0x3f0000), Type: 'B'},
		{Name: "swapper_pg_dir", Addr: m.Image(0x200000), Type: 'D'},
	})
	return m
}

// armRegisters are registers at ip with a frame pointer.
func armRegisters(ip, sp, fp mem.VirtAddr, pstate uint64) []uint64 {
	words := make([]uint64, 34)
	words[29], words[31], words[32], words[33] = uint64(fp), uint64(sp), uint64(ip), pstate
	return words
}

// armRegs are the words of a struct pt_regs with its frame record, which lies at an offset.
func armRegs(regs []uint64, offset int, record ...uint64) []uint64 {
	return append(append(regs, make([]uint64, offset/8-len(regs))...), record...)
}

const el1h, el0t = 5, 0

// armTask is what the walks take for the address of the task.
const armTask = 0x500

func armTrace(t *testing.T, m *kerneltest.Machine, ip, fp mem.VirtAddr) unwind.Trace {
	t.Helper()
	return armWalk(t, unwinder(t, m, nil), ip, fp)
}

// armWalk walks from registers.
func armWalk(t *testing.T, u *unwind.Unwinder, ip, fp mem.VirtAddr) unwind.Trace {
	t.Helper()
	var b []byte
	for _, w := range armRegisters(ip, 0, fp, el1h) {
		b = append(b, kerneltest.Uint64(w)...)
	}
	r, err := unwind.ParseRegisters(elf.EM_AARCH64, b)
	if err != nil {
		t.Fatal(err)
	}
	return u.Unwind(armTask, r)
}

// TestFrameRecords walks records with signed return addresses, through an exception, to user mode.
func TestFrameRecords(t *testing.T) {
	for name, form := range map[string]struct {
		offset    int
		exception []uint64 // the record in pt_regs, instead of that of the interrupted frame
		user      []uint64
	}{
		"6.1":  {304, nil, []uint64{0, 0}},
		"6.13": {296, []uint64{0, 0, 2}, []uint64{0, 0, 1}},
	} {
		m := armMachine()
		text := m.Image(0)
		user := push(m, armStack-0x10, armRegs(armRegisters(0x401000, 0x7ffff000, 0xf00, el0t), form.offset, form.user...)...)
		last := user + mem.VirtAddr(form.offset)
		task := push(m, user-0x20, uint64(last), uint64(text+0x400))
		record := form.exception
		if record == nil {
			record = []uint64{uint64(task), uint64(text + 0x300)}
		}
		regs := push(m, task-0x20, armRegs(armRegisters(text+0x300, task, task, el1h), form.offset, record...)...)
		inner := push(m, regs-0x20, uint64(regs)+uint64(form.offset), uint64(text+0x200)&^signature|0x5a92_0000_0000_0000)
		tr := armTrace(t, m, text+0x100, inner)
		want := []struct {
			ip     mem.VirtAddr
			ret    bool
			method unwind.Method
		}{
			{text + 0x100, false, unwind.FromRegisters},
			{text + 0x200, true, unwind.FromFrameRecord},
			{text + 0x300, false, unwind.FromRegisters},
			{text + 0x400, true, unwind.FromFrameRecord},
			{0x401000, false, unwind.FromRegisters},
		}
		if len(tr.Frames) != len(want) || !tr.Complete || tr.End != "user mode" {
			t.Errorf("%s: %d frames, end %s: %+v", name, len(tr.Frames), tr.End, tr.Frames)
			continue
		}
		for i, w := range want {
			if f := tr.Frames[i]; f.IP != w.ip || f.Return != w.ret || f.Found != w.method || (f.Regs != nil) == f.Return {
				t.Errorf("%s: frame %d is %+v, want %+v", name, i, f, w)
			}
		}
	}
}

// TestLastRecord: kernel threads end in a record of zeros. All else cuts the trace.
func TestLastRecord(t *testing.T) {
	m := armMachine()
	last := push(m, armStack-0x400, 0, 0)
	if tr := armTrace(t, m, m.Image(0x100), push(m, last-0x20, uint64(last), uint64(m.Image(0x200)))); len(tr.Frames) != 2 || !tr.Complete {
		t.Errorf("got %+v", tr)
	}
	old := push(m, armStack-0x600, 0, uint64(m.Image(0x900)))
	if tr := armTrace(t, m, m.Image(0x100), old); len(tr.Frames) != 2 || !tr.Complete {
		t.Errorf("before 5.14: got %+v", tr)
	}
	if tr := armTrace(t, m, m.Image(0x100), push(m, armStack-0x700, 0, uint64(m.Image(0x800)))); len(tr.Frames) != 2 || tr.Complete {
		t.Errorf("without a frame pointer elsewhere: got %+v", tr)
	}
	traced := push(m, armStack-0x780, uint64(last), uint64(m.Image(0xa00)))
	if tr := armTrace(t, m, m.Image(0x100), traced); len(tr.Frames) != 2 || !tr.Complete || tr.Frames[1].Return {
		t.Errorf("with a traced return: got %+v", tr)
	}
	loop := push(m, armStack-0x800, uint64(armStack-0x810), uint64(m.Image(0x200)))
	for _, fp := range []mem.VirtAddr{
		0, 0x1000, last + 4, armStack, loop,
		push(m, armStack-0xa00, uint64(last), 0),
		push(m, armStack-0xb00, uint64(last), 0x7878787878787878),
		push(m, armStack-0xc00, uint64(last), 0x401000),
	} {
		if tr := armTrace(t, m, m.Image(0x100), fp); tr.Complete || tr.End == "" || len(tr.Frames) > 2 || fp != loop && len(tr.Frames) > 1 {
			t.Errorf("frame pointer %v: got %+v", fp, tr)
		}
	}
}
