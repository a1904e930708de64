package e2e

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/mem"
)

// TestKallsyms holds the symbol table that a dump contains to the /proc/kallsyms that its guest read before the panic:
// addresses by name, and names, starts, sizes and types by address.
func TestKallsyms(t *testing.T) {
	t.Parallel()
	for _, s := range []lab.Scenario{
		{Kernel: "5.10"}, // not in VMCOREINFO
		{Kernel: "6.1"},
		{Kernel: "6.1", CPU: "max"},
		{Kernel: "6.1-arm64"},
		{Kernel: "6.12"},
		{Kernel: "6.12", CPU: "max"},
		{Kernel: "6.12-arm64", CPU: "max"},
		{Kernel: "backports-arm64-16k", CPU: "cortex-a76"}, // place-relative addresses
	} {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			captured, err := lab.CaptureELF(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(captured.Kallsyms)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			kallsymsCompare(t, openDump(t, captured).Symbols, kallsymsRead(t, f))
		})
	}
}

// TestKallsymsOfPanic does the same with a dump at level 31 of the newest x86_64 kernel, which has place-relative addresses.
func TestKallsymsOfPanic(t *testing.T) {
	t.Parallel()
	captured, err := lab.Panic(t.Context(), lab.Scenario{Kernel: "7.3", Crash: "null-read"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(captured.Kallsyms)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	record, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	kallsymsCompare(t, openDump(t, captured).Symbols, kallsymsRead(t, record))
}

// kallsymsRead reads the symbols of the kernel image from a /proc/kallsyms. Those of modules, BPF programs and ftrace
// trampolines follow them, with the owner in brackets.
func kallsymsRead(t *testing.T, record io.Reader) []kallsyms.Symbol {
	t.Helper()
	var list []kallsyms.Symbol
	lines := bufio.NewScanner(record)
	for lines.Scan() {
		if strings.HasSuffix(lines.Text(), "]") {
			break
		}
		var s kallsyms.Symbol
		if _, err := fmt.Sscanf(lines.Text(), "%x %c %s", &s.Addr, &s.Type, &s.Name); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		list = append(list, s)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// kallsymsEnd returns where the part of the image ends in which the kernel has symbols for a: the whole, or the code where only
// that has symbols (Debian's arm64 kernels).
func kallsymsEnd(byName map[string]mem.VirtAddr, a mem.VirtAddr) (end mem.VirtAddr, ok bool) {
	ranges := [][2]string{{"_stext", "_etext"}, {"_sinittext", "_einittext"}}
	if _, ok := byName["_end"]; ok {
		ranges = [][2]string{{"_stext", "_end"}}
	}
	for _, r := range ranges {
		if byName[r[0]] <= a && a < byName[r[1]] {
			return byName[r[1]], true
		}
	}
	return 0, false
}

// kallsymsCompare compares every symbol. The first of a name has its address, the first at an address its name.
func kallsymsCompare(t *testing.T, table *kallsyms.Table, want []kallsyms.Symbol) {
	t.Helper()
	const maxErrors = 20
	errors := 0
	fail := func(format string, args ...any) {
		if errors++; errors <= maxErrors {
			t.Errorf(format, args...)
		}
	}
	byName := map[string]mem.VirtAddr{}
	for _, w := range want {
		if _, ok := byName[w.Name]; !ok {
			byName[w.Name] = w.Addr
		}
		if got, ok := table.Address(w.Name); !ok || got != byName[w.Name] {
			fail("%s is at %v, %v, want %v", w.Name, got, ok, byName[w.Name])
		}
	}
	found := 0
	for i := 0; i < len(want); {
		first, next := want[i], i+1
		for next < len(want) && want[next].Addr == first.Addr {
			next++
		}
		i = next
		end, ok := kallsymsEnd(byName, first.Addr)
		if !ok {
			if got, ok := table.Find(first.Addr); ok {
				fail("%v, outside of the image, is in %+v", first.Addr, got)
			}
			continue
		}
		first.Size = uint64(end - first.Addr)
		if next < len(want) {
			first.Size = min(first.Size, uint64(want[next].Addr-first.Addr))
		}
		for _, a := range []mem.VirtAddr{first.Addr, first.Addr + mem.VirtAddr(first.Size-1)} {
			if got, ok := table.Find(a); !ok || got != first {
				fail("%v is in %+v, %v, want %+v", a, got, ok, first)
			}
		}
		found++
	}
	t.Logf("%d symbols at %d addresses of the image", len(want), found)
	if errors > maxErrors || found < 10000 {
		t.Errorf("%d errors, %d addresses compared", errors, found)
	}
}
