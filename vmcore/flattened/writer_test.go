package flattened

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// buffer is an io.WriterAt in memory.
type buffer struct{ b []byte }

func (m *buffer) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func TestWriterRoundTrip(t *testing.T) {
	var stream bytes.Buffer
	w, err := NewWriter(&stream)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		off  int64
		text string
	}{{10, "later"}, {0, "first"}, {12, "LAST"}, {3, ""}} {
		if _, err := w.WriteAt([]byte(r.text), r.off); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var got buffer
	stats, err := Reassemble(&got, bytes.NewReader(stream.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if want := "first\x00\x00\x00\x00\x00laLAST"; string(got.b) != want || stats.Records != 3 {
		t.Errorf("got %q in %d records, want %q in 3", got.b, stats.Records, want)
	}
	if _, err := w.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a record after the end marker was written")
	}
}

func TestWriterRefusesOffsets(t *testing.T) {
	w, err := NewWriter(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{-1, MaxFileSize} {
		if _, err := w.WriteAt([]byte("x"), off); err == nil {
			t.Errorf("offset %d was written", off)
		}
	}
	if _, err := w.WriteAt([]byte("x"), 0); err != nil {
		t.Errorf("writer is unusable after a refused offset: %v", err)
	}
}

// limited fails after n bytes.
type limited struct{ n int }

var errFull = errors.New("full")

func (l *limited) Write(p []byte) (int, error) {
	if l.n -= len(p); l.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriterErrorSticks(t *testing.T) {
	w, err := NewWriter(&limited{n: headerLen + recordLen + 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte("xx"), 0); !errors.Is(err, errFull) {
		t.Errorf("got %v, want the stream's error", err)
	}
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close: got %v, want the first error", err)
	}
}
