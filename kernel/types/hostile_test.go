package types_test

import (
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/corehaul/corehaul/kernel/types"
)

// Kinds of records (include/uapi/linux/btf.h).
const (
	kindPtr       = 2
	kindArray     = 3
	kindStruct    = 4
	kindTypedef   = 8
	kindFuncProto = 13
	kindDeclTag   = 17
)

func words(list ...uint32) []byte {
	var b []byte
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// record returns the first 12 bytes of a type.
func record(name uint32, kind, vlen int, sizeOrType uint32) []byte {
	return words(name, uint32(kind)<<24|uint32(vlen), sizeOrType)
}

// rawBTF returns BTF of records that may be anything.
func rawBTF(names string, records ...[]byte) []byte {
	var all []byte
	for _, r := range records {
		all = append(all, r...)
	}
	n := uint32(len(all))
	b := append(words(0x1eb9f, 24, 0, n, n, uint32(len(names))), all...)
	return append(b, names...)
}

// chain returns n types, each of which refers to the one after it, the last one to the first.
func chain(n int, kind int) []byte {
	b := make([]byte, 0, 16*n)
	for i := range n {
		b = append(b, record(0, kind, 0, uint32((i+1)%n+1))...)
		if kind == kindDeclTag {
			b = append(b, words(0xffffffff)...)
		}
	}
	return b
}

// TestChainsDoNotExhaustTheStack has BTF that the decoder alone would follow until the program dies.
func TestChainsDoNotExhaustTheStack(t *testing.T) {
	const names = "\x00task\x00pid\x00"
	const n = 500_000
	for _, kind := range []int{kindPtr, kindDeclTag} {
		last := uint32(n + 2)
		b := rawBTF(names, chain(n, kind),
			record(1, kindStruct, 2, 8), words(6, 1, 0), words(0, last, 32), record(0, 1, 0, 4), words(32))
		known, err := types.Parse(b)
		if err != nil {
			t.Fatalf("kind %d: %v", kind, err)
		}
		if got, err := known.Offset("task", "pid"); kind == kindPtr && (err != nil || got != 0) {
			t.Errorf("kind %d: got %d, %v", kind, got, err)
		}
	}
	if _, err := types.Parse(rawBTF(names, chain(n, kindTypedef))); err == nil || !strings.Contains(err.Error(), "holds") {
		t.Errorf("typedefs of each other: %v", err)
	}
	forward := rawBTF(names, chain(200, kindTypedef)[:199*12], record(1, kindStruct, 0, 4))
	if _, err := types.Parse(forward); err == nil {
		t.Error("200 types in each other were accepted")
	}
	var backward []byte
	for i := range 200 {
		backward = append(backward, record(0, kindTypedef, 0, uint32(i))...)
	}
	if _, err := types.Parse(rawBTF(names, backward)); err == nil {
		t.Error("200 types in each other, the other way round, were accepted")
	}
}

// TestMembersWithoutEnd has a structure whose anonymous members have 2^60 paths through them.
func TestMembersWithoutEnd(t *testing.T) {
	var all []byte
	for i := range 60 {
		all = append(all, record(1, kindStruct, 2, 0)...)
		all = append(all, words(0, uint32(i+2), 0, 0, uint32(i+2), 0)...)
	}
	all = append(all, record(1, kindStruct, 0, 0)...)
	known := parse(t, rawBTF("\x00task\x00", all))
	if _, err := known.Field("task", "pid"); err == nil {
		t.Error("no error")
	}
}

// TestMemoryIsBounded has members that all have the same long name, which the decoder copies for each.
func TestMemoryIsBounded(t *testing.T) {
	long := strings.Repeat("x", 4000)
	var all []byte
	for range 20 {
		all = append(all, record(1, kindStruct, 65535, 0)...)
		for range 65535 {
			all = append(all, words(1, 0, 0)...)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := types.Parse(rawBTF("\x00"+long+"\x00", all)); err == nil {
		t.Error("5 GiB of names were accepted")
	}
	if _, err := types.Parse(rawBTF("\x00"+strings.Repeat("x", 5000)+"\x00", record(1, kindStruct, 0, 0))); err == nil {
		t.Error("a name of 5000 bytes was accepted")
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 128<<20 {
		t.Errorf("%d bytes allocated", got)
	}
}

func TestDamagedBTF(t *testing.T) {
	whole := blob(t, task, state)
	for n := range whole {
		if known, err := types.Parse(append([]byte(nil), whole[:n]...)); err == nil || known != nil {
			t.Fatalf("cut to %d of %d bytes: %v, %v", n, len(whole), known, err)
		}
	}
	for at := range whole {
		for _, flip := range []byte{1, 0x80, 0xff} {
			b := append([]byte(nil), whole...)
			b[at] ^= flip
			ask(b)
		}
	}
	for name, b := range map[string][]byte{
		"other magic":  append(words(0x1eb9e), whole[4:]...),
		"kind 0":       rawBTF("\x00", record(0, 0, 0, 0)),
		"kind 31":      rawBTF("\x00", record(0, 31, 0, 0)),
		"overlapping":  append(words(0x1eb9f, 24, 0, 12, 8, 12), make([]byte, 20)...),
		"long header":  append(words(0x1eb9f, 1<<31, 0, 12, 8, 12), make([]byte, 20)...),
		"far types":    append(words(0x1eb9f, 24, 1<<31, 12, 0, 1), make([]byte, 20)...),
		"long strings": append(words(0x1eb9f, 24, 0, 12, 12, 0xffffffff), make([]byte, 20)...),
	} {
		if known, err := types.Parse(b); err == nil {
			t.Errorf("%s: got %v", name, known)
		}
	}
}

// ask asks BTF for something of everything.
func ask(b []byte) {
	known, err := types.Parse(b)
	if err != nil {
		return
	}
	for _, path := range []string{"thread.sp", "second", "comm", "high", "nothing"} {
		if f, err := known.Field("task_struct", path); err == nil && f.BitOffset > 63 {
			panic(f)
		}
	}
	_, _ = known.Size("task_struct")
	_, _ = known.Enum("module_state", "MODULE_STATE_LIVE")
}

func FuzzParse(f *testing.F) {
	f.Add(blob(f, task, state))
	f.Add(blob(f, &btf.Func{Name: "f", Type: &btf.FuncProto{Return: u32, Params: []btf.FuncParam{{Name: "p", Type: u64}}}},
		&btf.Var{Name: "v", Type: u64}, &btf.Datasec{Name: ".data..percpu", Size: 8, Vars: []btf.VarSecinfo{{Type: &btf.Var{Name: "w", Type: u64}}}}))
	f.Add(rawBTF("\x00task_struct\x00", record(1, kindArray, 0, 0), words(1, 1, 1<<31), record(0, kindFuncProto, 1, 1), words(1, 1)))
	f.Fuzz(func(_ *testing.T, b []byte) { ask(b) })
}
