package unwind_test

import (
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
)

// armText writes the frames of a trace as offsets in the image, with the methods, and the end.
func armText(m *kerneltest.Machine, tr unwind.Trace) (list []string) {
	for _, f := range tr.Frames {
		list = append(list, fmt.Sprintf("%#x %s", uint64(f.IP-m.Image(0)), f.Found))
	}
	return append(list, tr.End)
}

// mapStack gives a machine one more stack and returns its end.
func mapStack(m *kerneltest.Machine, at mem.VirtAddr) mem.VirtAddr {
	size := uint64(m.PageSize())
	m.Map(at, m.Alloc(size), size, uint(bits.TrailingZeros64(size)))
	return at + mem.VirtAddr(size)
}

// TestARM64Stacks walks from the stack on which an overflow is handled (overflow_stack in arch/arm64/kernel/traps.c), through that of
// interrupts, to that of a task, with pages of every size. Frame records lead from one stack to another, and so do the
// registers of exceptions.
func TestARM64Stacks(t *testing.T) {
	for _, shift := range []uint{12, 14, 16} {
		for name, form := range map[string]struct {
			offset    int
			exception []uint64
			user      []uint64
		}{
			"6.1":  {304, nil, []uint64{0, 0}},
			"6.13": {296, []uint64{0, 0, 2}, []uint64{0, 0, 1}},
		} {
			m := armMachinePages(shift)
			text := m.Image(0)
			record := func(fp, ip mem.VirtAddr) []uint64 {
				if form.exception != nil {
					return form.exception
				}
				return []uint64{uint64(fp), uint64(ip)}
			}
			end := armStack - 0x4000 + mem.VirtAddr(max(0x4000, m.PageSize()))
			user := push(m, end-0x10, armRegs(armRegisters(0x401000, 0x7ffff000, 0xf00, el0t), form.offset, form.user...)...)
			task := push(m, user-0x40, uint64(user)+uint64(form.offset), uint64(text+0x100))
			// An interrupt: its registers lie on the task's stack, its handler has the next stack.
			interrupted := push(m, task-0x40, armRegs(armRegisters(text+0x200, task, task, el1h), form.offset, record(task, text+0x200)...)...)
			onIRQ := push(m, mapStack(m, 0xffff800090000000)-0x40, uint64(interrupted)+uint64(form.offset), uint64(text+0x300))
			// An overflow there: its registers lie on a stack of its own.
			overflown := push(m, mapStack(m, 0xffff8000a0000000)-0x10, armRegs(armRegisters(text+0x400, onIRQ, onIRQ, el1h), form.offset, record(onIRQ, text+0x400)...)...)
			inner := push(m, overflown-0x40, uint64(overflown)+uint64(form.offset), uint64(text+0x500)&^signature|0x7f80_0000_0000_0000)
			tr := armTrace(t, m, text+0x600, inner)
			want := []string{
				"0x600 registers", "0x500 frame record", "0x400 registers", "0x300 frame record", "0x200 registers", "0x100 frame record",
				fmt.Sprintf("%#x registers", uint64(0x401000-text)), "user mode",
			}
			if got := armText(m, tr); !slices.Equal(got, want) || !tr.Complete {
				t.Errorf("pages of %d, %s: got %q, want %q", m.PageSize(), name, got, want)
			}
		}
	}
}

// TestSignedAddresses: the signature has the bits of KERNELPACMASK (GENMASK_ULL(63, vabits_actual)), all but bit 55, which stays. A
// kernel that signs nothing has a mask of 0, and addresses that are signed are none there.
func TestSignedAddresses(t *testing.T) {
	const stray = 0x5a92_0000_0000_0000 // bit 55 is set
	for _, tc := range []struct {
		mask int64
		bits uint64 // in the place of the signature
		want string
	}{
		{-1 << 48, stray, "0x200 frame record"},
		{-1 << 48, 0x00ff_0000_0000_0000, "0x200 frame record"},
		{-1 << 48, 0xff80_0000_0000_0000, "0x200 frame record"},
		{-1 << 52, 0xfa9f_0000_0000_0000, "0x200 frame record"}, // bits below the mask are of the address
		{-1 << 48, 0x5a12_0000_0000_0000, ""},                   // bit 55 is clear: an address of user mode
		{0, stray, ""},
		{0, 0xffff_0000_0000_0000, "0x200 frame record"},
	} {
		m := armMachine()
		m.Numbers["KERNELPACMASK"] = tc.mask
		last := push(m, armStack-0x400, 0, 0)
		inner := push(m, last-0x40, uint64(last), uint64(m.Image(0x200))&^signature|tc.bits)
		tr := armTrace(t, m, m.Image(0x100), inner)
		got := ""
		if len(tr.Frames) > 1 {
			got = armText(m, tr)[1]
		}
		if got != tc.want || tr.Complete != (tc.want != "") {
			t.Errorf("mask %#x, %#x: got %+v", tc.mask, tc.bits, tr)
		}
	}
}

// TestARM64KeptReturn: tracers know a return address by the frame pointer of the caller, and keep it signed.
func TestARM64KeptReturn(t *testing.T) {
	m := armMachine()
	last := push(m, armStack-0x400, 0, 0)
	caller := push(m, last-0x40, uint64(last), uint64(m.Image(0x300)))
	inner := push(m, caller-0x40, uint64(caller), uint64(m.Image(0xa00)))
	signed := m.Image(0x200)&^signature | 0x5a92_0000_0000_0000
	u := unwinderFrom(t, m, unwind.Sources{Returns: kept{{armTask, caller}: {m.Image(0xa00), signed}}})
	want := []string{"0x100 registers", "0x200 tracer", "0x300 frame record", "end of stack"}
	if got := armText(m, armWalk(t, u, m.Image(0x100), inner)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzFrameRecords fills a stack with words. Whatever they say, a walk ends and says why, and no frame is in user memory unless it has
// registers of user mode.
func FuzzFrameRecords(f *testing.F) {
	m := armMachine()
	at := func(offset uint64) uint64 { return uint64(armStack) - 0x1000 + offset }
	seed := func(words ...uint64) (b []byte) {
		for _, w := range words {
			b = append(b, kerneltest.Uint64(w)...)
		}
		return b
	}
	f.Add(uint8(0), seed(at(0x10), uint64(m.Image(0x200)), at(0x20), uint64(m.Image(0x300)), 0, 0), uint16(0), int64(-1<<48))
	f.Add(uint8(1), seed(at(0x10), uint64(m.Image(0xa00)), at(0), uint64(m.Image(0x300))), uint16(0), int64(0))
	f.Add(uint8(2), seed(armRegs(armRegisters(m.Image(0x200), armStack-0x1000, armStack-0x1000, el1h), typedRecordAt, 0, 0, 2)...), uint16(typedRecordAt), int64(-1))
	f.Add(uint8(0), seed(armRegs(armRegisters(0x401000, 0x7ffff000, 0, el0t), typedRecordAt, 0, 0, 1)...), uint16(typedRecordAt), int64(1))
	f.Fuzz(func(t *testing.T, pages uint8, words []byte, fp uint16, mask int64) {
		m := armMachinePages(12 + 2*uint(pages%3))
		m.Numbers["KERNELPACMASK"] = mask
		m.WriteVirt(armStack-0x1000, words[:min(len(words), 0x1000)])
		u := unwinderFrom(t, m, unwind.Sources{Returns: kept{{armTask, mem.VirtAddr(at(0))}: {m.Image(0x200), m.Image(0xa00)}}})
		start := armStack - 0x1000 + mem.VirtAddr(fp)
		for _, tr := range []unwind.Trace{armWalk(t, u, m.Image(0x100), start), u.UnwindSwitched(armTask, start, start, m.Image(0x810))} {
			if tr.End == "" || len(tr.Frames) > 1024 {
				t.Errorf("%d frames, end %q", len(tr.Frames), tr.End)
			}
			for _, frame := range tr.Frames {
				if frame.Regs == nil && frame.IP>>63 == 0 {
					t.Errorf("%+v", frame)
				}
			}
		}
	})
}

// typedRecordAt is where struct pt_regs has its record since 6.13.
const typedRecordAt = 296
