package protocol

import (
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPipeSession is TestSession within a process.
func TestPipeSession(t *testing.T) {
	a, b := Pipe()
	sender, receiver := NewConn(a, Sender), NewConn(b, Receiver)
	for _, line := range script(t) {
		from, to := sender, receiver
		if line.from == Receiver {
			from, to = receiver, sender
		}
		written := make(chan error, 1)
		go func() { written <- from.Write(line.m) }()
		got, err := to.Read()
		if err := errors.Join(err, <-written); err != nil {
			t.Fatalf("%s: %v", line.m.Type(), err)
		}
		if diff := cmp.Diff(line.m, got, equalMessages); diff != "" {
			t.Errorf("%s (-sent +got):\n%s", line.m.Type(), diff)
		}
	}
}

// TestPipeChecksHeads damages each byte of a CHUNK on its way: what places the pages has a checksum within a process, too.
func TestPipeChecksHeads(t *testing.T) {
	script := script(t)
	chunk := script[11].m.(*Chunk)
	head, err := chunk.appendHead(nil, exampleParams)
	if err != nil {
		t.Fatal(err)
	}
	for at := range headerLen + len(head) {
		a, b := Pipe()
		sender := NewConn(a, Sender)
		go func() { // every message before, and the chunk
			for _, line := range script[:12] {
				if line.from == Sender {
					_ = sender.Write(line.m) // the receiver sees what is missing
				} else {
					_ = sender.order.pass(Receiver, line.m)
				}
			}
			_ = a.Close()
		}()
		c, d := Pipe()
		go relay(b, c, TypeChunk, at)
		receiver := NewConn(d, Receiver)
		for _, line := range script[:11] {
			if line.from == Receiver {
				_ = receiver.order.pass(Receiver, line.m)
			} else if _, err := receiver.Read(); err != nil {
				t.Fatal(err)
			}
		}
		if m, err := receiver.Read(); err == nil {
			t.Errorf("byte %d: got %v", at, m)
		}
		_, _ = b.Close(), d.Close()
	}
}

// relay copies frames from r to w, and flips a bit of byte at in those of a type.
func relay(r io.Reader, w io.WriteCloser, damaged Type, at int) {
	defer func() { _ = w.Close() }()
	for {
		b := make([]byte, headerLen)
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		h, err := parseHeader(b, Sender)
		if err != nil {
			return
		}
		b = append(b, make([]byte, h.length)...)
		if _, err := io.ReadFull(r, b[headerLen:]); err != nil {
			return
		}
		if h.typ == damaged {
			b[at] ^= 1
		}
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}
