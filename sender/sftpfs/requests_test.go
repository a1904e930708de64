package sftpfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Types of requests, draft-ietf-secsh-filexfer-02, section 3.
const (
	fxpRead  = 5
	fxpWrite = 6
)

// requests counts what a client asks for, by types. It stands in the line to the server.
type requests struct {
	net.Conn
	mu    sync.Mutex
	count map[byte]int
	buf   []byte
}

func (r *requests) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.buf = append(r.buf, p...)
	for len(r.buf) > 4 {
		n := 4 + int(binary.BigEndian.Uint32(r.buf))
		if len(r.buf) < n {
			break
		}
		r.count[r.buf[4]]++
		r.buf = r.buf[n:]
	}
	r.mu.Unlock()
	return r.Conn.Write(p)
}

// take returns the counts since the last call.
func (r *requests) take() map[byte]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.count
	r.count = map[byte]int{}
	return got
}

// TestSmallWrites: what dumps do with descriptors, each of which is read before it is written, costs few requests, and none
// that is waited for.
func TestSmallWrites(t *testing.T) {
	dir := t.TempDir()
	f, line := connectCounted(t, dir, "me")
	file, err := f.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	const size, step = 2 * maxBlocks * blockLen, 64
	want, p := make([]byte, size), make([]byte, step)
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	line.take()
	for off := 0; off < size; off += step {
		if n, err := file.ReadAt(p, int64(off)); err != nil || n != step || !bytes.Equal(p, make([]byte, step)) {
			t.Fatalf("at %d: %d bytes, %v, want zeros", off, n, err)
		}
		binary.BigEndian.PutUint64(want[off:], uint64(off)+1)
		if _, err := file.WriteAt(want[off:off+step], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := line.take(); got[fxpWrite] != size/blockLen || got[fxpRead] != 0 {
		t.Errorf("%d writes and %d reads, want %d and none", got[fxpWrite], got[fxpRead], size/blockLen)
	}
	for off := 0; off < size; off += step { // the cache has had too little room for all of it
		if n, err := file.ReadAt(p, int64(off)); err != nil || n != step || !bytes.Equal(p, want[off:off+step]) {
			t.Fatalf("at %d: %d bytes, %v, or they differ", off, n, err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is another one, %v", err)
	}
}

// TestReadAhead reads a file from front to back, and writes into what was read ahead.
func TestReadAhead(t *testing.T) {
	dir := t.TempDir()
	const size = 5<<20 + 12345
	rnd := rand.New(rand.NewPCG(1, 1))
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(rnd.Uint32())
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := connect(t, dir, "me").OpenRW("f")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // what counts was read
	for _, step := range []int{64 << 10, 256 << 10, 300_001} {
		p := make([]byte, step)
		for off := 0; off < size; off += step {
			if off > 0 && rnd.IntN(4) == 0 {
				at := off + rnd.IntN(size-off)
				want[at]++
				if _, err := file.WriteAt(want[at:at+1], int64(at)); err != nil {
					t.Fatal(err)
				}
			}
			n, err := file.ReadAt(p, int64(off))
			if here := min(step, size-off); n != here || !bytes.Equal(p[:n], want[off:off+n]) || (err == nil) != (here == step) || (err != nil && !errors.Is(err, io.EOF)) {
				t.Fatalf("%d of %d bytes at %d, %v, or they differ", n, step, off, err)
			}
		}
	}
}

// TestAheadOfReader: to a reader that waits for the server, what fills the window of a channel is asked for ahead, after a while.
func TestAheadOfReader(t *testing.T) {
	const size, packet, window = 256 << 20, 32 << 10, 2 << 20
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "f"), size); err != nil {
		t.Fatal(err)
	}
	f, line := connectCounted(t, dir, "me")
	file, err := f.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // only read
	line.take()
	p := make([]byte, pieceLen)
	asked := 0
	for off := int64(0); off < size; off += pieceLen {
		if _, err := file.ReadAt(p, off); err != nil {
			t.Fatal(err)
		}
		if asked += line.take()[fxpRead]; int64(asked)*packet-off >= window {
			return
		}
	}
	t.Errorf("%d packets were asked for, never 2 MiB ahead", asked)
}
