package oops_test

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/corehaul/corehaul/kernel/oops"
)

func TestReadKeepsErrors(t *testing.T) {
	broken := errors.New("broken disk")
	if r, err := oops.Read(iotest.ErrReader(broken)); r != nil || !errors.Is(err, broken) {
		t.Errorf("got %v, %v, want the reader's error", r, err)
	}
	if r, err := oops.Read(strings.NewReader("")); r != nil || !errors.Is(err, oops.ErrNoCrash) {
		t.Errorf("empty log: got %v, %v, want ErrNoCrash", r, err)
	}
}

// TestPieces holds that a report does not depend on how the log is cut into writes.
func TestPieces(t *testing.T) {
	for _, s := range samples(t)[:20] {
		whole, wantErr := oops.Read(strings.NewReader(s.log))
		pieces, err := oops.Read(iotest.OneByteReader(strings.NewReader(s.log)))
		if fmt.Sprint(err) != fmt.Sprint(wantErr) || err == nil && whole.Title != pieces.Title {
			t.Errorf("%s: got %v, %v in one piece, %v, %v in many", s.name, whole, wantErr, pieces, err)
		}
	}
}

// TestCutLogs cuts every log everywhere: a report of a part of a log has a title, or there is none.
func TestCutLogs(t *testing.T) {
	for _, s := range samples(t) {
		for n := 0; n < len(s.log); n += 997 {
			for _, part := range []string{s.log[:n], s.log[n:]} {
				r, err := oops.Read(strings.NewReader(part))
				if err == nil && (r.Title == "" || r.Kind == "" || r.Headline == "") {
					t.Errorf("%s cut at %d: %+v", s.name, n, r)
				}
			}
		}
	}
}

// hostile writes lines without end, as a program may write them to /dev/kmsg.
type hostile struct {
	lines []string
	n     int
}

func (h *hostile) Read(p []byte) (int, error) {
	h.n++
	return copy(p, h.lines[h.n%len(h.lines)]+"\n"), nil
}

func TestMemoryIsBounded(t *testing.T) {
	const size, limit = 16 << 20, 6 << 20
	for name, lines := range map[string][]string{
		"headlines":    {"BUG: a", "WARNING: b at c", "---[ end trace"},
		"frames":       {"BUG: a", "Call Trace:", strings.Repeat(" a+0x1/0x2\n", 200)},
		"traces":       {"BUG: a", strings.Repeat("x:\n a+0x1/0x2\n", 100)},
		"registers":    {"BUG: a", "RIP: 0010:a+0x1/0x2", strings.Repeat("RAX: 0000000000000000 ", 50)},
		"modules":      {"BUG: a", "Modules linked in:" + strings.Repeat(" a(OE)", 300), strings.Repeat("b ", 400)},
		"long lines":   {"Kernel panic - not syncing: a", strings.Repeat("a", 30<<10)},
		"line feeds":   {"BUG: a", strings.Repeat("\r", 2000)},
		"no line ends": {strings.Repeat("\x00", 1000)},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var s oops.Scanner
		if _, err := io.CopyN(&s, &hostile{lines: lines}, size); err != nil {
			t.Fatal(err)
		}
		r, err := s.Report()
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > limit {
			t.Errorf("%s: a report of %d bytes keeps %d bytes", name, size, grown)
		}
		runtime.KeepAlive(s)
		if err == nil && len(r.Traces) > 64 {
			t.Errorf("%s: %d traces", name, len(r.Traces))
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(s.log)
	}
	f.Fuzz(func(t *testing.T, log string) {
		r, err := oops.Read(strings.NewReader(log))
		if err != nil {
			if !errors.Is(err, oops.ErrNoCrash) || r != nil {
				t.Errorf("got %v, %v", r, err)
			}
			return
		}
		if r.Kind == "" || r.Title == "" && strings.TrimSpace(r.Headline) != "" {
			t.Errorf("%+v has no kind or no title", r)
		}
		if len(r.Title) > 200 {
			t.Errorf("title of %d bytes", len(r.Title))
		}
		if strings.ContainsFunc(r.Title, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("title %q is not printable", r.Title)
		}
	})
}
