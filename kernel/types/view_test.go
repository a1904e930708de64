package types_test

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/types"
)

func TestView(t *testing.T) {
	m := kerneltest.NewX86(4)
	at := m.Image(0x1000)
	m.WriteVirt(at, make([]byte, 128))
	m.WriteVirt(at+16, kerneltest.Uint64(0xffffffff81000000))
	m.WriteVirt(at+32, kerneltest.Uint64(1<<63|5))
	m.WriteVirt(at+56, []byte("kthreadd\x00x"))
	m.WriteVirt(at+72, kerneltest.Uint32(2<<30|6))
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	known := parse(t, blob(t, task))
	v, err := known.View("task_struct", []string{"tasks.prev", "thread.sp", "comm"}, "low", "high", "state")
	if err != nil {
		t.Fatal(err)
	}
	r, err := v.Read(k, at)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Text("comm"); got != "kthreadd" {
		t.Errorf("comm: %q", got)
	}
	if got := r.Pointer("tasks.prev"); got != 0xffffffff81000000 || r.Addr("tasks.prev") != at+16 {
		t.Errorf("tasks.prev: %v at %v", got, r.Addr("tasks.prev"))
	}
	for path, want := range map[string]uint64{"thread.sp": 1<<63 | 5, "low": 6, "high": 2, "state": 0} {
		if got := r.Uint(path); got != want {
			t.Errorf("%s: got %#x, want %#x", path, got, want)
		}
	}
	if v.Has("state") || !v.Has("high") || r.Bytes("state") != nil || v.Field("comm").Len != 16 {
		t.Error("which members there are")
	}
	none, err := v.Read(k, 0x1000)
	if err == nil || none.Uint("low") != 0 || none.Bytes("comm") != nil || none.Addr("comm") != 0 || none.Text("comm") != "" {
		t.Errorf("where nothing is mapped: %+v, %v", none, err)
	}
}

func TestViewRefuses(t *testing.T) {
	wide := &btf.Struct{Name: "wide", Size: 1 << 30, Members: []btf.Member{
		{Name: "near", Type: u64},
		{Name: "far", Type: u64, Offset: 1 << 31},
		{Name: "big", Type: &btf.Array{Index: u32, Type: u64, Nelems: 1 << 20}, Offset: 64},
	}}
	known := parse(t, blob(t, wide))
	for _, member := range []string{"far", "big"} {
		if v, err := known.View("wide", nil, "near", member); err == nil {
			t.Errorf("%s: got %+v", member, v)
		}
	}
	for _, members := range [][]string{{"none"}, {"near", "none"}, nil} {
		if v, err := known.View("wide", members, "other"); !errors.Is(err, types.ErrNotFound) {
			t.Errorf("%q: got %+v, %v", members, v, err)
		}
	}
}
