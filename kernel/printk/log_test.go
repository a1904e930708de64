package printk_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/mem"
)

func kernelAddr(v uint64) mem.VirtAddr { return mem.VirtAddr(v) }

func logDump(tb testing.TB, l *kerneltest.Log, name string) (string, error) {
	tb.Helper()
	m := kerneltest.NewX86(4)
	m.InstallLog(l, name)
	return dump(tb, m)
}

// 4.18 calls the structure printk_log, 3.10 in its first releases log.
func TestLogText(t *testing.T) {
	for _, name := range []string{"printk_log", "log"} {
		l := kerneltest.NewLog(1 << 12)
		l.Add(1_500_000_000, "first", "SUBSYSTEM=pci\x00DEVICE=+pci:0000:00:01.1")
		l.Add(2_000_000_000, "two\nlines\x01", "")
		l.Add(2_000_000_001, "", "")
		want := "[    1.500000] first\n[    2.000000] two\n               lines.\n[    2.000000] \n"
		if got, err := logDump(t, l, name); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestLogWraps(t *testing.T) {
	l := kerneltest.NewLog(1 << 10)
	var lines []string
	wrapped := 0
	for i := range 300 {
		text := fmt.Sprintf("record %d %s", i, strings.Repeat("x", i*13%50))
		if l.Add(0, text, strings.Repeat("D", i%30)) {
			wrapped++
		}
		lines = append(lines, "[    0.000000] "+text+"\n")
		got, err := logDump(t, l, "printk_log")
		if err != nil {
			t.Fatalf("after %d records: %v", i+1, err)
		}
		if want := strings.Join(lines[len(lines)-l.Count():], ""); got != want {
			t.Fatalf("after %d records: got %q, want %q", i+1, got, want)
		}
	}
	if wrapped < 5 {
		t.Errorf("the buffer wrapped only %d times", wrapped)
	}
}

func TestLogCorrupt(t *testing.T) {
	const one = "[    0.000000] one\n"
	second := uint32(24) // offset of the second record
	for _, tc := range []struct {
		name   string
		change func(l *kerneltest.Log)
		want   string
	}{
		{"first beyond the end", func(l *kerneltest.Log) { l.First = 5000 }, ""},
		{"next beyond the end", func(l *kerneltest.Log) { l.Next = 5000 }, ""},
		{"no length", func(l *kerneltest.Log) { binary.LittleEndian.PutUint16(l.Buf[second+8:], 0) }, one},
		{"short length", func(l *kerneltest.Log) { binary.LittleEndian.PutUint16(l.Buf[second+8:], 8) }, one},
		{"length beyond the end", func(l *kerneltest.Log) { binary.LittleEndian.PutUint16(l.Buf[second+8:], 2000) }, one},
		{
			"text longer than the record", func(l *kerneltest.Log) { binary.LittleEndian.PutUint16(l.Buf[second+10:], 9) },
			one + "[    0.000000] three\n",
		},
		{"next inside a record", func(l *kerneltest.Log) { l.Next -= 4 }, one + "[    0.000000] two\n"},
		{"loop to the start and never to next", func(l *kerneltest.Log) {
			l.First, l.Next = second, second-4
			binary.LittleEndian.PutUint16(l.Buf[second+8:], 0)
		}, ""},
	} {
		l := kerneltest.NewLog(1 << 10)
		for _, text := range []string{"one", "two", "three"} {
			l.Add(0, text, "")
		}
		tc.change(l)
		got, err := logDump(t, l, "printk_log")
		var corrupt *printk.CorruptError
		if !errors.As(err, &corrupt) || corrupt.What == "" {
			t.Errorf("%s: got %v, want a CorruptError", tc.name, err)
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func FuzzLog(f *testing.F) {
	l := kerneltest.NewLog(512)
	for i := range 40 {
		l.Add(uint64(i)*1e9, strings.Repeat("text ", i%5), "dict")
	}
	f.Add(l.Buf, l.First, l.Next)
	f.Add(l.Buf[:100], uint32(0), uint32(100))
	f.Add(make([]byte, 64), uint32(0), uint32(48))
	f.Fuzz(func(t *testing.T, buf []byte, first, next uint32) {
		got, err := logDump(t, &kerneltest.Log{Buf: buf, First: first, Next: next}, "printk_log")
		if strings.Count(got, "[") > 0 && err == nil && len(buf) < kerneltest.LogHeader {
			t.Errorf("%q from %d bytes", got, len(buf))
		}
		// A record has a header and prints at most its text, 15 bytes of time stamp
		// (24 for the largest) and as many for each newline in it.
		if most := 32 * (len(buf) + 1); len(got) > most {
			t.Errorf("%d bytes of text from %d bytes of log", len(got), len(buf))
		}
	})
}
