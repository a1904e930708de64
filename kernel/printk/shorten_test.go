package printk_test

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/mem"
)

// shorten writes a log through a Shortener, in pieces of step bytes.
func shorten(t *testing.T, log string, limit uint64, step int) (short string, left uint64) {
	t.Helper()
	var whole printk.TitleScanner
	var out strings.Builder
	write := func(w io.Writer) {
		for at := 0; at < len(log); at += step {
			if n, err := io.WriteString(w, log[at:min(at+step, len(log))]); err != nil || n != min(step, len(log)-at) {
				t.Fatalf("write: %d, %v", n, err)
			}
		}
	}
	write(&whole)
	s := printk.NewShortener(&out, &whole, limit)
	write(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String(), s.LeftOut()
}

var mark = regexp.MustCompile(`(?m)^--- corehaul left out (\d+) bytes of the log here.*\n`)

// numbered returns lines that are told apart by their number.
func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "[%5d.000000] line %d of a long log\n", i, i)
	}
	return b.String()
}

// A log that is too long keeps its first part, its last, and what stands around its panic line, in whole lines; each gap has a mark
// that says how long it is, and the panic line stays that of the whole log.
func TestShortenedLog(t *testing.T) {
	const limit, n = printk.MinShortened, 40000
	const fault = "[    5.000000] BUG: unable to handle page fault for address: ffffc90000000000\n"
	const vague = "[    6.000000] Kernel panic - not syncing: Fatal exception\n"
	const clear = "[    6.000000] Kernel panic - not syncing: sysrq triggered crash\n"
	for _, tc := range []struct {
		name, log string
		marks     int
	}{
		{"panic at the end", numbered(0, n) + clear, 1},
		{"panic at the start", clear + numbered(0, n), 1},
		{"panic in the middle", numbered(0, n) + clear + numbered(n, 2*n), 2},
		{"fault in the middle, panic at the end", numbered(0, n) + fault + numbered(n, 2*n) + vague, 2},
		// The start has a report without an end, which would be taken for that of the fault.
		{"another report at the start", "[    1.0] INFO: task a:1 blocked for more than 120 seconds.\n" + numbered(0, n) +
			"[    2.0] ---[ end trace 0 ]---\n" + numbered(0, n) + fault + numbered(n, 2*n) + vague, 2},
		// The end has a report that is not the first one behind the fault.
		{"another report at the end", numbered(0, n) + fault + numbered(n, 2*n) + "[    5.9] WARNING: at late.c:1 f\n" + vague, 2},
		{"no panic", numbered(0, n), 1},
		{"panic line near the part at the end", numbered(0, n) + clear + strings.Repeat(".\n", 90<<10), 1},
		{"a little too long", numbered(0, n)[:limit+1], 1},
		{"one line without an end", strings.Repeat("x", 1<<20), 1},
		{"giant lines", strings.Repeat("x", 1<<20) + "\n" + clear + strings.Repeat("y", 1<<20), 2},
		{"nothing but line ends", strings.Repeat("\n", 1<<20), 1},
		{"bytes of no text", strings.Repeat("\x00\x80\xff\x1b\n", 1<<18), 1},
	} {
		want := printk.PanicLine(strings.Split(tc.log, "\n"))
		short, left := shorten(t, tc.log, limit, 4099)
		if again, _ := shorten(t, tc.log, limit, 13); again != short {
			t.Errorf("%s: the pieces in which it comes make a difference", tc.name)
		}
		if len(short) > limit || len(short) < limit*8/10 {
			t.Errorf("%s: %d bytes", tc.name, len(short))
		}
		marks := mark.FindAllStringSubmatch(short, -1)
		sum := uint64(0)
		for _, m := range marks {
			n, err := strconv.ParseUint(m[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if len(marks) != tc.marks || sum != left || left == 0 {
			t.Errorf("%s: %d marks for %d bytes, want %d for %d", tc.name, len(marks), sum, tc.marks, left)
		}
		parts := mark.Split(short, -1)
		if first := parts[0]; !strings.HasPrefix(tc.log, strings.TrimSuffix(first, "\n")) {
			t.Errorf("%s: the first part is not the log's", tc.name)
		}
		if last := parts[len(parts)-1]; !strings.HasSuffix(tc.log, last) || len(last) < limit/2 {
			t.Errorf("%s: the last part, of %d bytes, is not the log's", tc.name, len(last))
		}
		for _, part := range parts {
			if len(tc.log) > 0 && tc.log[0] == '[' && part[0] != '[' && part[0] != '.' {
				t.Errorf("%s: a part begins with %q", tc.name, part[:10])
			}
		}
		if got := printk.PanicLine(strings.Split(short, "\n")); got != want {
			t.Errorf("%s: panic line %q, in the whole log %q", tc.name, got, want)
		}
	}
	if short, left := shorten(t, numbered(0, 100)+clear, limit, 7); left != 0 || short != numbered(0, 100)+clear {
		t.Errorf("a short log comes as %d bytes, %d left out", len(short), left)
	}
}

// A log that is not the one that was read before does not become longer than the limit, and is said to be another one.
func TestShortenedLogMoves(t *testing.T) {
	const log = "[    0.000000] a line\n"
	for _, tc := range []struct{ first, then int }{{10, 9}, {10, 1 << 20}, {1 << 20, 100}, {1 << 16, 1 << 20}, {0, 1}} {
		var whole printk.TitleScanner
		_, _ = whole.Write(bytes.Repeat([]byte(log), tc.first))
		var out bytes.Buffer
		s := printk.NewShortener(&out, &whole, printk.MinShortened)
		if _, err := s.Write(bytes.Repeat([]byte(log), tc.then)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err == nil || out.Len() > printk.MinShortened {
			t.Errorf("%d lines, then %d: %d bytes, %v", tc.first, tc.then, out.Len(), err)
		}
	}
}

// An error of the writer below ends the writing, wherever it comes.
func TestShortenedLogError(t *testing.T) {
	log := numbered(0, 40000)
	var whole printk.TitleScanner
	_, _ = io.WriteString(&whole, log)
	for _, after := range []int{0, 1, 30 << 10, 200 << 10} {
		s := printk.NewShortener(&fullWriter{after}, &whole, printk.MinShortened)
		_, err := io.WriteString(s, log)
		if err != io.ErrShortWrite || s.Close() != io.ErrShortWrite { //nolint:errorlint // it comes as it is
			t.Errorf("after %d bytes: %v, %v", after, err, s.Close())
		}
	}
}

type fullWriter struct{ left int }

func (f *fullWriter) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// A line of the log cannot pass for a mark.
func TestMarkIsNoLine(t *testing.T) {
	const forged = "--- corehaul left out 5 bytes of the log here; its panic line: forged"
	r := kerneltest.NewRing(4, 12)
	r.Add(0, forged)
	r.Add(0, "text\n"+forged)
	r.AddDataless()
	r.Add(0, "BUG: real")
	log, err := ringDump(t, r)
	if err != nil {
		t.Fatal(err)
	}
	if got := printk.PanicLine(strings.Split(log, "\n")); got != "BUG: real" {
		t.Errorf("panic line %q", got)
	}
	for _, line := range []string{
		"--- corehaul left out x bytes of the log here; its panic line: a", "--- corehaul left out 5 bytes of the log here",
		"--- corehaul left out 5 bytes of the log here; its panic line: ", "--- corehaul left out 5 lines",
	} {
		if got := printk.PanicLine([]string{"BUG: a", line}); got != "BUG: a" {
			t.Errorf("%q: panic line %q", line, got)
		}
	}
}

// FuzzShortener holds what is written to the limit, and the panic line to that of the whole log.
func FuzzShortener(f *testing.F) {
	f.Add("BUG: a\n", 20000, uint16(40), "Kernel panic - not syncing: Fatal exception\n", 20000)
	f.Add("x", 400000, uint16(1), "\n", 5)
	f.Fuzz(func(t *testing.T, a string, n int, step uint16, b string, m int) {
		n, m = n&0xffff, m&0xffff
		if len(a) > 1<<8 || len(b) > 1<<8 {
			return
		}
		log := strings.Repeat(a, n) + "[    1.0] BUG: in the middle\n" + strings.Repeat(b, m)
		short, left := shorten(t, log, printk.MinShortened, int(step)+1)
		if len(short) > printk.MinShortened || left == 0 && short != log {
			t.Errorf("%d bytes of %d, %d left out", len(short), len(log), left)
		}
		var whole, part printk.TitleScanner
		_, _ = io.WriteString(&whole, log)
		_, _ = io.WriteString(&part, short)
		if got, want := part.Line(), whole.Line(); got != want && len(want) < 1<<10 {
			t.Errorf("panic line %q, in the whole log %q", got, want)
		}
	})
}

// countLines counts the lines of a log, and keeps its last one.
type countLines struct {
	lines, bytes int
	last         []byte
}

func (c *countLines) Write(p []byte) (int, error) {
	c.bytes += len(p)
	c.lines += bytes.Count(p, []byte("\n"))
	c.last = append(c.last, p...)
	c.last = append(c.last[:0], c.last[max(0, len(c.last)-200):]...)
	return len(p), nil
}

// The largest logs that the kernel can have are read to their end: log_buf_len=128M and 2^31 bytes, in the ring, whose descriptors
// are one for 32 bytes, and in the buffer of older kernels. Texts of 60 KiB keep the number of records small.
func TestLargestLogs(t *testing.T) {
	const n, textLen = 1200, 60 << 10
	line := func(i uint64) string {
		if i == n-1 {
			return "Kernel panic - not syncing: at the very end;"
		}
		return fmt.Sprintf("record %d;", i)
	}
	machine := func(install func(*kerneltest.Machine) *kerneltest.MadeMemory) func() (kernel.Config, error) {
		return func() (kernel.Config, error) {
			m := kerneltest.NewX86(4)
			memory := install(m)
			cfg := m.Config()
			cfg.Memory = memory
			return cfg, nil
		}
	}
	for name, open := range map[string]func() (kernel.Config, error){
		"ring of 128 MiB": machine(func(m *kerneltest.Machine) *kerneltest.MadeMemory {
			return m.InstallLongRing(22, 27, n, textLen, line)
		}),
		"ring of 2 GiB": machine(func(m *kerneltest.Machine) *kerneltest.MadeMemory {
			return m.InstallLongRing(26, 31, n, textLen, line)
		}),
		"old buffer of 2 GiB": machine(func(m *kerneltest.Machine) *kerneltest.MadeMemory {
			return m.InstallLongLog(1<<31, n, textLen, line)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := open()
			if err != nil {
				t.Fatal(err)
			}
			k, err := kernel.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var title printk.TitleScanner
			var count countLines
			if err := printk.Dump(k, io.MultiWriter(&title, &count)); err != nil {
				t.Error(err)
			}
			if count.lines != n || count.bytes < n*textLen || title.Bytes() != uint64(count.bytes) {
				t.Errorf("%d lines of %d, %d bytes", count.lines, n, count.bytes)
			}
			if !strings.HasPrefix(title.Line(), line(n-1)) {
				t.Errorf("panic line %.60q", title.Line())
			}
			areas, err := printk.Areas(k)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range areas { // the last byte of each is there
				if err := k.ReadVirt(make([]byte, 1), a.Start+mem.VirtAddr(a.Size-1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
