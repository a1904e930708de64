package types_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/mem"
)

// Types of the tests, shaped as those of the kernel.
var (
	u32      = &btf.Int{Name: "unsigned int", Size: 4}
	u64      = &btf.Int{Name: "unsigned long", Size: 8}
	listHead = &btf.Struct{Name: "list_head", Size: 16}
	thread   = &btf.Struct{Name: "thread_struct", Size: 24, Members: []btf.Member{
		{Name: "sp", Type: u64, Offset: 8 * 8}, {Name: "more", Type: u64, Offset: 16 * 8},
	}}
	task = &btf.Struct{Name: "task_struct", Size: 128, Members: []btf.Member{
		{Name: "__state", Type: &btf.Volatile{Type: u32}, Offset: 0},
		{Name: "tasks", Type: listHead, Offset: 8 * 8},
		{Name: "thread", Type: &btf.Typedef{Name: "thread_t", Type: &btf.Const{Type: thread}}, Offset: 24 * 8},
		{Type: &btf.Union{Size: 8, Members: []btf.Member{
			{Name: "first", Type: u32, Offset: 0},
			{Type: &btf.Struct{Size: 8, Members: []btf.Member{{Name: "second", Type: u32, Offset: 4 * 8}}}},
		}}, Offset: 48 * 8},
		{Name: "comm", Type: &btf.Array{Index: u32, Type: &btf.Int{Name: "char", Size: 1}, Nelems: 16}, Offset: 56 * 8},
		{Name: "low", Type: u32, Offset: 72 * 8, BitfieldSize: 3},
		{Name: "high", Type: u32, Offset: 72*8 + 30, BitfieldSize: 2},
		{Name: "nothing", Type: &btf.Array{Index: u32, Type: u64, Nelems: 0}, Offset: 80 * 8},
	}}
	state = &btf.Enum{Name: "module_state", Size: 4, Signed: true, Values: []btf.EnumValue{
		{Name: "MODULE_STATE_LIVE", Value: 0}, {Name: "MODULE_STATE_GONE", Value: math.MaxUint64},
	}}
)

func init() {
	list := &btf.Pointer{Target: listHead}
	listHead.Members = []btf.Member{{Name: "next", Type: list}, {Name: "prev", Type: list, Offset: 64}}
}

// blob returns the BTF of some types.
func blob(tb testing.TB, list ...btf.Type) []byte {
	tb.Helper()
	b, err := btf.NewBuilder(list, nil)
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := b.Marshal(nil, &btf.MarshalOptions{Order: binary.LittleEndian})
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func parse(t *testing.T, raw []byte) *types.Types {
	t.Helper()
	parsed, err := types.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestField(t *testing.T) {
	known := parse(t, blob(t, task))
	for path, want := range map[string]types.Field{
		"__state":     {Size: 4},
		"tasks":       {Offset: 8, Size: 16},
		"tasks.prev":  {Offset: 16, Size: 8},
		"thread.sp":   {Offset: 32, Size: 8},
		"first":       {Offset: 48, Size: 4},
		"second":      {Offset: 52, Size: 4},
		"comm":        {Offset: 56, Size: 16, Len: 16},
		"low":         {Offset: 72, Size: 4, Bits: 3},
		"high":        {Offset: 72, Size: 4, BitOffset: 30, Bits: 2},
		"nothing":     {Offset: 80},
		"thread.more": {Offset: 40, Size: 8},
	} {
		if got, err := known.Field("task_struct", path); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", path, got, err, want)
		}
	}
	for path, say := range map[string]string{
		"state":             `task_struct has no member "state"`,
		"thread.ip":         `task_struct.thread has no member "ip"`,
		"tasks.next.next":   "task_struct.tasks.next has no members",
		"":                  "no member",
		"thread.":           "no member",
		"comm.x":            "no members",
		"second.more.still": "no members",
	} {
		_, err := known.Offset("task_struct", path)
		if !errors.Is(err, types.ErrNotFound) || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: got error %v, want one with %q", path, err, say)
		}
	}
	if _, err := known.Field("mm_struct", "pgd"); !errors.Is(err, types.ErrNotFound) || !strings.Contains(err.Error(), "mm_struct") {
		t.Errorf("of a type that is not there: %v", err)
	}
}

func TestFieldOfOneOfSeveralTypes(t *testing.T) {
	other := &btf.Struct{Name: "task_struct", Size: 8, Members: []btf.Member{{Name: "alien", Type: u64}}}
	known := parse(t, blob(t, &btf.Fwd{Name: "task_struct"}, other, task))
	for path, want := range map[string]uint64{"alien": 0, "thread.sp": 32} {
		if got, err := known.Offset("task_struct", path); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", path, got, err, want)
		}
	}
	if got, err := known.Size("task_struct"); err != nil || got != 8 {
		t.Errorf("size: got %d, %v", got, err)
	}
}

func TestSizeAndEnum(t *testing.T) {
	known := parse(t, blob(t, task, state, &btf.Typedef{Name: "pid_t", Type: u32}))
	for name, want := range map[string]uint64{"task_struct": 128, "pid_t": 4, "module_state": 4, "unsigned long": 8} {
		if got, err := known.Size(name); err != nil || got != want {
			t.Errorf("size of %s: got %d, %v", name, got, err)
		}
	}
	if _, err := known.Size(""); !errors.Is(err, types.ErrNotFound) {
		t.Errorf("size of a type without a name: %v", err)
	}
	for name, want := range map[string]int64{"MODULE_STATE_LIVE": 0, "MODULE_STATE_GONE": -1} {
		if got, err := known.Enum("module_state", name); err != nil || got != want {
			t.Errorf("%s: got %d, %v", name, got, err)
		}
	}
	for _, q := range [][2]string{{"module_state", "X"}, {"nosuch", "MODULE_STATE_LIVE"}, {"pid_t", "MODULE_STATE_LIVE"}} {
		if _, err := known.Enum(q[0], q[1]); !errors.Is(err, types.ErrNotFound) {
			t.Errorf("%v: got %v", q, err)
		}
	}
}

type symbols map[string]mem.VirtAddr

func (s symbols) Address(name string) (mem.VirtAddr, bool) { a, ok := s[name]; return a, ok }

func TestLoad(t *testing.T) {
	m := kerneltest.NewX86(4)
	raw := blob(t, task)
	start := m.Image(0x1ff0) // it crosses pages
	m.WriteVirt(start, raw)
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	stop := start + mem.VirtAddr(len(raw))
	known, err := types.Load(k, symbols{"__start_BTF": start, "__stop_BTF": stop})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := known.Offset("task_struct", "thread.sp"); err != nil || got != 32 {
		t.Errorf("got %d, %v", got, err)
	}
	for name, s := range map[string]symbols{
		"none":     {},
		"no stop":  {"__start_BTF": start},
		"reversed": {"__start_BTF": stop, "__stop_BTF": start},
		"empty":    {"__start_BTF": start, "__stop_BTF": start},
		"huge":     {"__start_BTF": start, "__stop_BTF": start + 1<<40},
	} {
		if got, err := types.Load(k, s); got != nil || !errors.Is(err, types.ErrNoBTF) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	wild := symbols{"__start_BTF": 0xffffffffc0000000, "__stop_BTF": 0xffffffffc0001000}
	if got, err := types.Load(k, wild); got != nil || err == nil {
		t.Errorf("unmapped: got %v, %v", got, err)
	}
}

// TestSearch has kernels whose symbols are those of code alone.
func TestSearch(t *testing.T) {
	many := []btf.Type{task}
	for i := range 24000 {
		many = append(many, &btf.Struct{Name: "filler_" + strings.Repeat("x", i%7) + string(rune('a'+i%26)), Size: uint32(i)})
	}
	whole := blob(t, many...)
	s := symbols{}
	load := func(raw []byte, end mem.VirtAddr) (*types.Types, error) {
		m := kerneltest.NewX86(4)
		s["_etext"], s["_sinittext"] = m.Image(0x1234), m.Image(0)+end
		m.WriteVirt(m.Image(0x1ff0), append([]byte{0x9f, 0xeb, 1, 0, 24}, make([]byte, 40)...)) // another magic
		m.WriteVirt(m.Image(0x3ffc), raw)                                                       // its header crosses pages
		k, err := kernel.New(m.Config())
		if err != nil {
			t.Fatal(err)
		}
		return types.Load(k, s)
	}
	known, err := load(whole, 0x100000)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := known.Offset("task_struct", "thread.sp"); err != nil || got != 32 {
		t.Errorf("got %d, %v", got, err)
	}
	typeLen := binary.LittleEndian.Uint32(whole[12:])
	between := slices.Insert(slices.Clone(whole), 24+int(typeLen), make([]byte, 80)...)
	binary.LittleEndian.PutUint32(between[16:], typeLen+80)
	if got, err := load(between, 0x100000); err != nil || got == nil {
		t.Errorf("with a table between types and names: got %v, %v", got != nil, err)
	}
	for name, tc := range map[string]struct {
		raw []byte
		end mem.VirtAddr
	}{"behind many": {append(bytes.Repeat([]byte{0x9f, 0xeb, 1, 0}, 65), whole...), 0x100000}, "of a module": {blob(t, task), 0x100000}, "behind the end": {whole, 0x2000}, "reversed": {whole, 0x1000}} {
		if got, err := load(tc.raw, tc.end); got != nil || !errors.Is(err, types.ErrNoBTF) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}
