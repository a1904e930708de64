package tasks_test

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/types/typestest"
	"github.com/corehaul/corehaul/mem"
)

// hookForm is how a kernel keeps return addresses.
type hookForm struct {
	head      string // of task_struct; "" for a table
	structure string
	link      string
	frame     string
}

var hookForms = map[string]hookForm{
	"5.10": {"", "kretprobe_instance", "hlist", "fp"},
	"5.15": {"kretprobe_instances", "kretprobe_instance", "llist", "fp"},
	"6.1":  {"rethooks", "rethook_node", "llist", "frame"},
}

// tracedMachine is a machine whose kernel has tracers. The structure of the function graph tracer says for which place an entry is if
// places is set.
func tracedMachine(h hookForm, places bool) *machine {
	list := structures(forms["6.1"])
	task := list[0].(*btf.Struct)
	add := func(to *btf.Struct, name string, typ btf.Type) {
		to.Members = append(to.Members, btf.Member{Name: name, Type: typ, Offset: btf.Bits(8 * to.Size)})
		to.Size += 8
	}
	first := func(name string) btf.Type {
		return typestest.Struct(name, typestest.Member{Name: "first", Type: typestest.Pointer})
	}
	if h.head != "" {
		add(task, h.head, first("llist_head"))
	}
	add(task, "ret_stack", typestest.Pointer)
	link := typestest.Struct("node", typestest.Member{Name: "next", Type: typestest.Pointer})
	node := typestest.Struct(h.structure, typestest.Member{Name: "rcu", Type: typestest.Long}, typestest.Member{Name: h.link, Type: link},
		typestest.Member{Name: "ret_addr", Type: typestest.Long}, typestest.Member{Name: "task", Type: typestest.Pointer}, typestest.Member{Name: h.frame, Type: typestest.Long})
	entry := typestest.Struct("ftrace_ret_stack", typestest.Member{Name: "ret", Type: typestest.Long}, typestest.Member{Name: "func", Type: typestest.Long})
	if places {
		add(entry, "retp", typestest.Pointer)
	}
	return machineOf(forms["6.1"], append(list, node, entry))
}

// hook puts a node before those of a list, which begins at head.
func (m *machine) hook(h hookForm, head, task mem.VirtAddr, returnTo, frame uint64) {
	at := m.Make(h.structure)
	first, err := m.Open().ReadUint64(head)
	if err != nil {
		panic(err)
	}
	m.Set(at, h.structure, h.link+".next", first)
	m.Set(at, h.structure, "ret_addr", returnTo)
	m.Set(at, h.structure, "task", uint64(task))
	m.Set(at, h.structure, h.frame, frame)
	m.WriteVirt(head, kerneltest.Uint64(uint64(m.Member(at, h.structure, h.link))))
}

const place, elsewhere = 0xffffc90000003f00, 0xffffc90000003f08

func TestReturns(t *testing.T) {
	for name, h := range hookForms {
		m := tracedMachine(h, true)
		var head mem.VirtAddr
		if h.head == "" {
			head = m.Variable("kretprobe_inst_table", 64*8) + 8*13
		} else {
			head = m.Member(m.init, "task_struct", h.head+".first")
		}
		m.hook(h, head, m.init, 0xa, place)
		m.hook(h, head, m.init, 0xb, elsewhere)
		m.hook(h, head, m.init, 0xc, place)
		other := m.process(10, "other", m.init)
		if h.head == "" {
			m.hook(h, head, other, 0xd, place)
		}
		returns, err := m.reader(t).Returns()
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			task  mem.VirtAddr
			frame mem.VirtAddr
			want  []mem.VirtAddr
		}{{m.init, place, []mem.VirtAddr{0xc, 0xa}}, {m.init, elsewhere, []mem.VirtAddr{0xb}}, {m.init, 0x1000, nil}, {0x1000, place, nil}} {
			if got := returns.Probed(tc.task, tc.frame); !slices.Equal(got, tc.want) {
				t.Errorf("%s: task %v, frame %v: got %v, want %v", name, tc.task, tc.frame, got, tc.want)
			}
		}
		m.hook(h, head, m.init, 0xe, place)
		first, _ := m.Open().ReadUint64(head)
		m.WriteVirt(mem.VirtAddr(first), kerneltest.Uint64(first)) // a loop
		if got := returns.Probed(m.init, elsewhere); len(got) > 0 {
			t.Errorf("%s: a loop gave %v", name, got)
		}
	}
}

// TestReturnStack finds entries among data of others. Of old ones of the same place, the first counts.
func TestReturnStack(t *testing.T) {
	for _, places := range []bool{true, false} {
		m := tracedMachine(hookForms["6.1"], places)
		stack := m.Space(4096)
		m.Set(m.init, "task_struct", "ret_stack", uint64(stack))
		for i, w := range []uint64{7, 0xa, 0xf, elsewhere, 9, 9, 9, 0xb, 0xf, place, 0xc, 0xf, place} {
			m.WriteVirt(stack+mem.VirtAddr(8*i), kerneltest.Uint64(w))
		}
		returns, err := m.reader(t).Returns()
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := returns.Graphed(m.init, place); ok != places || ok && got != 0xb {
			t.Errorf("places %v: got %v, %v", places, got, ok)
		}
		if got, ok := returns.Graphed(m.init, 0x1000); ok {
			t.Errorf("got %v", got)
		}
		if got := returns.Probed(m.init, place); len(got) > 0 {
			t.Errorf("no kretprobe has %v", got)
		}
	}
}
