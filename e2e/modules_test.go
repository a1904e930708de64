package e2e

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/modules"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
)

// TestModules compares the modules with mod of crash, and with the /proc/modules and /proc/kallsyms that the guest read before
// the panic.
func TestModules(t *testing.T) {
	t.Parallel()
	for _, s := range []lab.Scenario{
		{Kernel: "5.10", Kexec: "c"}, {Kernel: "6.1", Kexec: "c"}, {Kernel: "6.12", Kexec: "c"},
	} {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			c := tasksCapture(t, s)
			list := modulesLoad(t, openDump(t, c))
			want := tasksSpaces(judgesCrashOriginal(t, c, "mod")["mod"])
			want = strings.ReplaceAll(want, " (not loaded) [CONFIG_KALLSYMS]", "")
			judgesSame(t, map[string]string{"mod": modulesMod(list)}, map[string]string{"mod": want})
			modulesSameAsRecord(t, list, c)
		})
	}
}

// TestModulesOfRecord does the same without crash.
func TestModulesOfRecord(t *testing.T) {
	t.Parallel()
	for _, s := range []lab.Scenario{
		{Kernel: "7.3"},
		{Kernel: "6.12-arm64", CPU: "max"},
		{Kernel: "backports-arm64-16k", CPU: "cortex-a76"},
		{Kernel: "6.1-arm64"}, // without symbols of data
	} {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			c, err := lab.CaptureELF(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			modulesSameAsRecord(t, modulesLoad(t, openDump(t, c)), c)
		})
	}
}

func modulesLoad(t *testing.T, d *lab.Dump) *modules.List {
	t.Helper()
	list, err := modules.Load(d.Kernel, d.Symbols, d.Types)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// modulesMod prints modules as crash's mod, by their addresses, with single spaces.
func modulesMod(list *modules.List) string {
	var out strings.Builder
	sorted := slices.SortedFunc(slices.Values(list.All()), func(a, b *modules.Module) int { return cmp.Compare(a.Base(), b.Base()) })
	for _, m := range sorted {
		fmt.Fprintf(&out, "%x %s %x %d\n", uint64(m.Addr), m.Name, uint64(m.Base()), m.Size())
	}
	return out.String()
}

// modulesProc prints modules as /proc/modules does.
func modulesProc(list *modules.List) string {
	var out strings.Builder
	for _, m := range list.All() {
		users := "-"
		if len(m.UsedBy) > 0 {
			users = strings.Join(m.UsedBy, ",") + ","
		}
		references := m.References
		if m.Name == "virtio_blk" {
			references++ // the guest has opened a disk while it makes its record
		}
		fmt.Fprintf(&out, "%s %d %d %s %v %#x", m.Name, m.Size(), references, users, m.State, uint64(m.Base()))
		if m.Taints != "" {
			fmt.Fprintf(&out, " (%s)", m.Taints)
		}
		out.WriteString("\n")
	}
	return out.String()
}

func modulesSameAsRecord(t *testing.T, list *modules.List, c *lab.Captured) {
	t.Helper()
	f, err := os.Open(c.Kallsyms)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	modulesSame(t, list, c.Modules, f, !strings.Contains(c.Scenario.Name(), "arm64"))
}

// TestModulesThatTaint has a module that is no part of the kernel, in dumps without the pages that a dump level leaves out.
func TestModulesThatTaint(t *testing.T) {
	t.Parallel()
	for _, kernel := range []string{"5.10", "6.1", "6.12", "7.3"} {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			c, err := lab.Panic(t.Context(), lab.Scenario{Kernel: kernel, Crash: "null-read"})
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(c.Kallsyms)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			kallsyms, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			list := modulesLoad(t, openDump(t, c))
			modulesSame(t, list, c.Modules, kallsyms, true)
			if m := list.All()[0]; m.Name != "crashmod" || m.Taints != "OE" || m.Version != "1.0" || len(m.SrcVersion) < 20 {
				t.Errorf("got %+v", m)
			}
		})
	}
}

// modulesSame compares modules with a /proc/modules, and their symbols with a /proc/kallsyms.
func modulesSame(t *testing.T, list *modules.List, procModules string, procKallsyms io.Reader, orc bool) {
	t.Helper()
	record, err := os.ReadFile(procModules)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := modulesProc(list), string(record); got != want || len(want) == 0 {
		t.Errorf("modules:\n%s\nwant\n%s", got, want)
	}
	want := modulesRecordedSymbols(t, procKallsyms)
	n := 0
	for _, m := range list.All() {
		symbols, err := list.Symbols(m)
		if err != nil {
			t.Errorf("symbols of %s: %v", m.Name, err)
			continue
		}
		var got []string
		for _, s := range symbols {
			got = append(got, fmt.Sprintf("%v %s %s", s.Addr, strings.ToLower(string(s.Type)), s.Name))
			modulesFind(t, list, m, s)
		}
		slices.Sort(got)
		if w := want[m.Name]; !slices.Equal(got, w) {
			t.Errorf("%s: %d symbols, want %d:\n%.2000q\nwant\n%.2000q", m.Name, len(got), len(w), got, w)
		}
		n += len(got)
		if table, _ := list.ORC(m.Base()); (table.Count > 0) != orc {
			t.Errorf("%s: %d ORC entries", m.Name, table.Count)
		}
	}
	if n < 100 {
		t.Errorf("only %d symbols compared", n)
	}
	t.Logf("%d modules, %d symbols", len(list.All()), n)
}

// modulesFind looks the addresses of a symbol up. Another symbol may have the same place.
func modulesFind(t *testing.T, list *modules.List, m *modules.Module, s kallsyms.Symbol) {
	t.Helper()
	if s.Size == 0 || strings.HasPrefix(s.Name, "$") || strings.HasPrefix(s.Name, ".L") { // absolute symbols; those of assemblers
		return
	}
	for _, a := range []mem.VirtAddr{s.Addr, s.Addr + mem.VirtAddr(s.Size-1)} {
		if in, got, ok := list.Find(a); !ok || in != m || got.Addr != s.Addr || got.Size != s.Size {
			t.Errorf("%v is in %+v of %s, %v, want %+v of %s", a, got, in.Name, ok, s, m.Name)
		}
	}
}

// modulesRecordedSymbols reads the symbols of modules in a /proc/kallsyms: "address type name" by module, sorted.
func modulesRecordedSymbols(t *testing.T, proc io.Reader) map[string][]string {
	t.Helper()
	list := map[string][]string{}
	lines := bufio.NewScanner(proc)
	for lines.Scan() {
		p := strings.Fields(lines.Text())
		if len(p) != 4 {
			continue
		}
		module := strings.Trim(p[3], "[]")
		list[module] = append(list[module], p[0]+" "+strings.ToLower(p[1])+" "+p[2])
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for _, symbols := range list {
		slices.Sort(symbols)
	}
	return list
}

// The unwinder takes the list.
var _ unwind.Modules = (*modules.List)(nil)
