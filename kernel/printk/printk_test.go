package printk_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/printk"
)

func dump(tb testing.TB, m *kerneltest.Machine) (string, error) {
	tb.Helper()
	k, err := kernel.New(m.Config())
	if err != nil {
		tb.Fatal(err)
	}
	var b strings.Builder
	err = printk.Dump(k, &b)
	return b.String(), err
}

// ringDump installs a ring in a fresh machine and dumps it.
func ringDump(tb testing.TB, r *kerneltest.Ring) (string, error) {
	tb.Helper()
	m := kerneltest.NewX86(4)
	m.InstallRing(r.RingImage)
	return dump(tb, m)
}

func TestRingText(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"plain", "Linux version 6.1.0", "[    0.000000] Linux version 6.1.0\n"},
		{"two lines", "Call Trace:\n <TASK>", "[    0.000000] Call Trace:\n                <TASK>\n"},
		{"closing newline", "text\n", "[    0.000000] text\n               \n"},
		{"control and other bytes", "a\x00b\x1b[31m\x7f\xc3\xa4\t\r\v|", "[    0.000000] a.b.[31m...\t\r\v|\n"},
		{"empty", "", "[    0.000000] \n"},
	} {
		r := kerneltest.NewRing(3, 8)
		r.Add(0, tc.text)
		if got, err := ringDump(t, r); err != nil || got != tc.want {
			t.Errorf("%s: got %q, %v, want %q", tc.name, got, err, tc.want)
		}
	}
}

func TestRingTimes(t *testing.T) {
	r := kerneltest.NewRing(3, 8)
	for _, ts := range []uint64{1, 999_999, 12_345_678_901, 123_456_789_012_345} {
		r.Add(ts, "x")
	}
	want := "[    0.000000] x\n[    0.000999] x\n[   12.345678] x\n[123456.789012] x\n"
	if got, err := ringDump(t, r); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// Whatever has been written to a ring, what is left is a tail of it, whole and in
// order, with records that wrap, and ids that do.
func TestRingWraps(t *testing.T) {
	r := kerneltest.NewRing(4, 9)
	var lines []string
	wrapped := 0
	for i := range 200 {
		text := fmt.Sprintf("record %d %s", i, strings.Repeat("x", i*7%40))
		id, wraps := r.Add(0, text)
		lines = append(lines, "[    0.000000] "+text+"\n")
		if wraps {
			wrapped++
		}
		got, err := ringDump(t, r)
		if err != nil {
			t.Fatalf("after %d records, id %#x: %v", i+1, id, err)
		}
		n := strings.Count(got, "\n")
		if n == 0 || got != strings.Join(lines[len(lines)-n:], "") {
			t.Fatalf("after %d records: got %q", i+1, got)
		}
		if most := int((r.HeadID - r.TailID) & (1<<62 - 1)); n < most {
			t.Fatalf("after %d records: %d of %d read", i+1, n, most)
		}
	}
	if wrapped < 5 {
		t.Errorf("only %d records wrapped", wrapped)
	}
}

func TestRingStates(t *testing.T) {
	r := kerneltest.NewRing(4, 9)
	r.Add(0, "first")
	r.AddDataless()
	r.Add(0, "being written")
	r.SetState(kerneltest.RingReserved)
	r.Add(0, "can be reopened")
	r.SetState(kerneltest.RingCommitted)
	r.Add(0, "last, being written")
	r.SetState(kerneltest.RingReserved)
	want := "[    0.000000] first\n\n[    0.000000] can be reopened\n"
	if got, err := ringDump(t, r); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if got, err := ringDump(t, kerneltest.NewRing(4, 9)); err != nil || got != "" {
		t.Errorf("empty ring: got %q, %v", got, err)
	}
}

func TestRingRecords(t *testing.T) {
	r := kerneltest.NewRing(4, 9)
	for i := range 40 {
		r.Add(uint64(i), "text")
	}
	m := kerneltest.NewX86(4)
	m.InstallRing(r.RingImage)
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	next := uint64(0)
	for rec, err := range printk.Records(k) {
		if err != nil {
			t.Fatal(err)
		}
		if next == 0 {
			next = rec.Seq
		}
		if rec.Seq != next || rec.TSNsec != next || rec.Level != 6 || rec.CallerID != 1 || string(rec.Text) != "text" {
			t.Errorf("record %d: got %+v", next, rec)
		}
		next++
	}
	if next != 40 {
		t.Errorf("the last record is %d, want 39", next-1)
	}
	printk.Records(k)(func(printk.Record, error) bool { return false }) // stopping early is allowed
}

// A torn ring gives what can be read, and an error that says what is wrong.
func TestRingCorrupt(t *testing.T) {
	const lines = "[    0.000000] one\n[    0.000000] two\n[    0.000000] three\n"
	for _, tc := range []struct {
		name, what string
		change     func(r *kerneltest.Ring)
		want       string
	}{
		{"too many descriptors", "count_bits", func(r *kerneltest.Ring) { r.CountBits = 40 }, ""},
		{"too much text", "size_bits", func(r *kerneltest.Ring) { r.SizeBits = 63 }, ""},
		{"wild tail", "tail_id", func(r *kerneltest.Ring) { r.TailID = 12345 }, lines},
		{
			"block of another record", "id of a data block",
			func(r *kerneltest.Ring) { r.Text[16]++ }, "[    0.000000] one\n[    0.000000] three\n",
		},
		{
			"block without room for its id", "position of a data block",
			func(r *kerneltest.Ring) { r.Descs[2*24+16] = r.Descs[2*24+8] + 4 }, "[    0.000000] one\n[    0.000000] two\n",
		},
	} {
		r := kerneltest.NewRing(3, 8)
		for _, text := range []string{"one", "two", "three"} {
			r.Add(0, text)
		}
		tc.change(r)
		got, err := ringDump(t, r)
		var corrupt *printk.CorruptError
		if !errors.As(err, &corrupt) || !strings.Contains(corrupt.What, tc.what) {
			t.Errorf("%s: got %v, want a CorruptError about %s", tc.name, err, tc.what)
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestRingTextCutToItsBlock(t *testing.T) {
	r := kerneltest.NewRing(3, 8)
	r.Add(0, "eight by")
	binary.LittleEndian.PutUint16(r.Infos[0*88+16:], 60000)
	if got, err := ringDump(t, r); err != nil || got != "[    0.000000] eight by\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRingMissingMemory(t *testing.T) {
	r := kerneltest.NewRing(3, 8)
	r.Add(0, "one")
	r.Add(0, "two")
	m := kerneltest.NewX86(4)
	m.InstallRing(r.RingImage)
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.ReadUint64(m.Image(0x100100 + 56))
	if err != nil {
		t.Fatal(err)
	}
	m.Remove(m.Direct(kernelAddr(text)))
	if got, err := dump(t, m); !errors.Is(err, kerneltest.ErrNoMemory) || got != "" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestMissingKeys(t *testing.T) {
	r := kerneltest.NewRing(3, 8)
	r.Add(0, "one")
	l := kerneltest.NewLog(1024)
	l.Add(0, "one", "")
	for name, install := range map[string]func(*kerneltest.Machine){
		"ring": func(m *kerneltest.Machine) { m.InstallRing(r.RingImage) },
		"log":  func(m *kerneltest.Machine) { m.InstallLog(l, "printk_log") },
	} {
		m := kerneltest.NewX86(4)
		before := m.Clone()
		install(m)
		full := m.Info
		for key := range full.Offsets {
			m.Info = full.Clone()
			delete(m.Offsets, key)
			if _, err := dump(t, m); !errors.Is(err, printk.ErrNoLog) && !strings.HasSuffix(key, "dict_len") {
				t.Errorf("%s without OFFSET(%s): %v", name, key, err)
			}
			m.Offsets[key] = 1 << 40
			if _, err := dump(t, m); !errors.Is(err, printk.ErrNoLog) && !strings.HasSuffix(key, "dict_len") {
				t.Errorf("%s with an absurd OFFSET(%s): %v", name, key, err)
			}
		}
		for key := range full.Sizes {
			for _, size := range []uint64{0, 3, 1 << 40} {
				m.Info = full.Clone()
				m.Sizes[key] = size
				if _, err := dump(t, m); !errors.Is(err, printk.ErrNoLog) {
					t.Errorf("%s with SIZE(%s)=%d: %v", name, key, size, err)
				}
			}
		}
		m.Info = before
		if _, err := dump(t, m); !errors.Is(err, printk.ErrNoLog) {
			t.Errorf("%s: no keys at all: %v", name, err)
		}
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestDumpToFailingWriter(t *testing.T) {
	r := kerneltest.NewRing(8, 15)
	for range 200 {
		r.Add(0, strings.Repeat("x", 100))
	}
	m := kerneltest.NewX86(4)
	m.InstallRing(r.RingImage)
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	if err := printk.Dump(k, failingWriter{full}); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}
