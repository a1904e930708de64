package generated_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/corehaul/corehaul/kernel/generated"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/types/typestest"
	"github.com/corehaul/corehaul/mem"
)

func member(name string, typ btf.Type) typestest.Member {
	return typestest.Member{Name: name, Type: typ}
}

// ksym is struct bpf_ksym of 5.7 and later.
var ksym = typestest.Struct("bpf_ksym", member("start", typestest.Long), member("end", typestest.Long), member("name", typestest.Text(128)), member("lnode", typestest.List))

// programs are the structures of BPF programs before 5.7.
func programs() []btf.Type {
	return []btf.Type{
		typestest.Struct("bpf_prog_aux", member("refcnt", typestest.Long), member("func_info_cnt", typestest.Int), member("ksym_lnode", typestest.List), member("prog", typestest.Pointer), member("name", typestest.Text(16))),
		typestest.Struct("bpf_prog", member("pages", typestest.Long), member("tag", typestest.Array(&btf.Int{Name: "u8", Size: 1}, 8)), member("bpf_func", typestest.Pointer)),
		typestest.Struct("bpf_binary_header", member("pages", typestest.Int)),
	}
}

// tracing are the structures of ftrace and kprobes.
func tracing() []btf.Type {
	return []btf.Type{
		typestest.Struct("ftrace_ops", member("func", typestest.Pointer), member("next", typestest.Pointer), member("trampoline", typestest.Long), member("trampoline_size", typestest.Long)),
		typestest.Struct("kprobe_insn_cache", member("mutex", typestest.Long), member("pages", typestest.List)),
		typestest.Struct("kprobe_insn_page", member("list", typestest.List), member("insns", typestest.Pointer)),
	}
}

// addKsym makes a BPF program.
func addKsym(k *typestest.Kernel, name string, start, end mem.VirtAddr) (node mem.VirtAddr) {
	at := k.Make("bpf_ksym")
	k.SetText(at, "bpf_ksym", "name", name)
	k.Set(at, "bpf_ksym", "start", uint64(start))
	k.Set(at, "bpf_ksym", "end", uint64(end))
	return k.Member(at, "bpf_ksym", "lnode")
}

const text = mem.VirtAddr(0xffffffffc0100000)

// traced is a kernel with code of each kind.
func traced() *typestest.Kernel {
	k := typestest.New(append(tracing(), ksym)...)
	k.Link(k.Variable("bpf_kallsyms", 16), addKsym(k, "bpf_prog_0123456789abcdef_filter", text+0x40, text+0x90), addKsym(k, "bpf_trampoline_1", text+0x1000, text+0x1200))
	list := k.Variable("ftrace_ops_list", 8)
	var ops []mem.VirtAddr
	for _, size := range []uint64{0x120, 0, 0x100} { // the second has none of its own
		at := k.Make("ftrace_ops")
		k.Set(at, "ftrace_ops", "trampoline", uint64(text)+0x2000*uint64(len(ops)+1))
		k.Set(at, "ftrace_ops", "trampoline_size", size)
		ops = append(ops, at)
	}
	k.WriteVirt(list, kerneltest.Uint64(uint64(ops[0])))
	k.Set(ops[0], "ftrace_ops", "next", uint64(ops[1]))
	k.Set(ops[1], "ftrace_ops", "next", uint64(ops[2]))
	for i, name := range []string{"kprobe_insn_slots", "kprobe_optinsn_slots"} {
		cache, page := k.Variable(name, 32), k.Make("kprobe_insn_page")
		k.Set(page, "kprobe_insn_page", "insns", uint64(text)+0x10000*uint64(i+1))
		k.Link(k.Member(cache, "kprobe_insn_cache", "pages"), k.Member(page, "kprobe_insn_page", "list"))
	}
	return k
}

func TestFind(t *testing.T) {
	k := traced()
	list, err := generated.Load(k.Open(), k.Names, k.Types)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		at   mem.VirtAddr
		want string
		bpf  bool
	}{
		{text + 0x3f, "", false},
		{text + 0x40, "bpf_prog_0123456789abcdef_filter+0x0/0x50 []", true},
		{text + 0x8f, "bpf_prog_0123456789abcdef_filter+0x4f/0x50 []", true},
		{text + 0x90, "", false},
		{text + 0x1001, "bpf_trampoline_1+0x1/0x200 []", true},
		{text + 0x2083, "ftrace_trampoline+0x83/0x120 [__builtin__ftrace]", false},
		{text + 0x4000, "", false},
		{text + 0x60ff, "ftrace_trampoline+0xff/0x100 [__builtin__ftrace]", false},
		{text + 0x10010, "kprobe_insn_page+0x10/0x1000 [__builtin__kprobes]", false},
		{text + 0x20fff, "kprobe_optinsn_page+0xfff/0x1000 [__builtin__kprobes]", false},
		{0, "", false},
	} {
		got := ""
		if s, module, ok := list.Find(tc.at); ok {
			got = fmt.Sprintf("%s+%#x/%#x [%s]", s.Name, uint64(tc.at-s.Addr), s.Size, module)
		}
		if got != tc.want || list.Contains(tc.at) != (tc.want != "") || list.KeepsFramePointer(tc.at) != tc.bpf {
			t.Errorf("%v: %q, %v, %v; want %q, %v", tc.at, got, list.Contains(tc.at), list.KeepsFramePointer(tc.at), tc.want, tc.bpf)
		}
	}
}

// TestBefore5_7 makes names of programs as the kernel does.
func TestBefore5_7(t *testing.T) {
	k := typestest.New(programs()...)
	nodes := []mem.VirtAddr{k.Variable("bpf_kallsyms", 16)}
	for i, name := range []string{"filter", "", "typed"} {
		aux, prog := k.Make("bpf_prog_aux"), k.Make("bpf_prog")
		code := k.Space(2 * kerneltest.PageSize) // in the image, where the machine has memory
		k.WriteVirt(code, kerneltest.Uint32(2))
		k.Set(aux, "bpf_prog_aux", "prog", uint64(prog))
		k.SetText(aux, "bpf_prog_aux", "name", name)
		k.Set(prog, "bpf_prog", "bpf_func", uint64(code)+0x44)
		k.WriteVirt(k.Member(prog, "bpf_prog", "tag"), []byte{1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, byte(i)})
		if name == "typed" {
			k.Set(aux, "bpf_prog_aux", "func_info_cnt", 1)
		}
		nodes = append(nodes, k.Member(aux, "bpf_prog_aux", "ksym_lnode"))
	}
	k.Link(nodes...)
	list, err := generated.Load(k.Open(), k.Names, k.Types)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range list.All() {
		got = append(got, fmt.Sprintf("%s %#x", c.Name, uint64(c.End-c.Start)))
	}
	want := "bpf_prog_0123456789abcd00_filter 0x2000, bpf_prog_0123456789abcd01 0x2000, bpf_prog_0123456789abcd02 0x2000"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s", strings.Join(got, ", "))
	}
}

// TestNone: a kernel without any of this has no code, which is no error.
func TestNone(t *testing.T) {
	for name, k := range map[string]*typestest.Kernel{"no symbols": traced(), "no types": typestest.New(typestest.List)} {
		if name == "no types" {
			for _, symbol := range []string{"bpf_kallsyms", "ftrace_ops_list", "kprobe_insn_slots", "kprobe_optinsn_slots"} {
				k.Variable(symbol, 64)
			}
		} else {
			clear(k.Names)
		}
		if list, err := generated.Load(k.Open(), k.Names, k.Types); err != nil || len(list.All()) > 0 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

// TestBrokenLists: what lies before the damage is there, and so are the other lists.
func TestBrokenLists(t *testing.T) {
	for name, damage := range map[string]func(*typestest.Kernel, mem.VirtAddr){
		"a loop":  func(k *typestest.Kernel, node mem.VirtAddr) { k.WriteVirt(node, kerneltest.Uint64(uint64(node))) },
		"no page": func(k *typestest.Kernel, node mem.VirtAddr) { k.WriteVirt(node, kerneltest.Uint64(0xdead000000000100)) },
	} {
		k := traced()
		node := addKsym(k, "bpf_prog_1", text, text+0x10)
		k.WriteVirt(k.Names["bpf_kallsyms"], kerneltest.Uint64(uint64(node)))
		damage(k, node)
		list, err := generated.Load(k.Open(), k.Names, k.Types)
		if err == nil || !strings.Contains(err.Error(), "bpf_kallsyms: ") || !list.Contains(text) || !list.Contains(text+0x2000) {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

// FuzzLoad overwrites memory of the lists. A list ends, and says why if it is broken.
func FuzzLoad(f *testing.F) {
	f.Add(uint32(0), uint64(0), uint32(64), uint64(1))
	f.Add(uint32(0x20), uint64(0xffffffff81010000), uint32(0x300), uint64(0xdead000000000100))
	f.Fuzz(func(t *testing.T, at uint32, value uint64, at2 uint32, value2 uint64) {
		k := traced()
		end := uint32(k.Space(8) - k.Image(0x10000))
		for a, v := range map[uint32]uint64{at: value, at2: value2} {
			k.WriteVirt(k.Image(0x10000+uint64(a%end)), kerneltest.Uint64(v))
		}
		list, _ := generated.Load(k.Open(), k.Names, k.Types)
		for i, c := range list.All() {
			if c.Start >= c.End || c.Name == "" || i > 0 && c.Start < list.All()[i-1].Start {
				t.Errorf("%+v", c)
			}
		}
	})
}
