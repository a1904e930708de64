package sshd

import (
	"bufio"
	"encoding/binary"
	"io"
	"sync"
)

// SFTP requests that may overtake each other, because they name an offset.
const (
	sftpRead  = 5
	sftpWrite = 6
)

// lockstep is an SFTP stream that delivers each request other than READ and WRITE alone: after the answers to all earlier
// requests, and before any later one. The library (v1.13.12) serves requests concurrently. But lftp sends the length of a
// file right after its bytes, and a hostile client may use a handle that it has guessed.
type lockstep struct {
	conn io.ReadWriteCloser
	in   *bufio.Reader
	left int64 // unread bytes of the current packet

	mu      sync.Mutex
	changed sync.Cond
	asked   uint64 // packets read
	until   uint64 // packets to be answered before the next one is read
	replied uint64 // packets written: the library answers each, in order
	closed  bool

	out framer
}

func newLockstep(conn io.ReadWriteCloser) *lockstep {
	l := &lockstep{conn: conn, in: bufio.NewReaderSize(conn, readBytes)}
	l.changed.L = &l.mu
	return l
}

// Read implements io.Reader. One goroutine may call it.
func (l *lockstep) Read(p []byte) (int, error) {
	if l.left == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n, err := l.in.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// next reads the head of a packet: a length of four bytes, and the type, which is the first byte of that length.
func (l *lockstep) next() error {
	if err := l.await(l.until); err != nil {
		return err
	}
	head, err := l.in.Peek(4)
	if err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(head)
	var kind byte
	if length > 0 {
		if head, err = l.in.Peek(5); err != nil {
			return err
		}
		kind = head[4]
	}
	alone := kind != sftpRead && kind != sftpWrite
	if alone {
		if err := l.await(l.asked); err != nil {
			return err
		}
	}
	l.left = 4 + int64(length)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if alone {
		l.until = l.asked
	}
	return nil
}

// await waits until the library has answered n packets.
func (l *lockstep) await(n uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.replied < n && !l.closed {
		l.changed.Wait()
	}
	if l.closed {
		return io.ErrClosedPipe
	}
	return nil
}

// owes reports whether the client waits for an answer, and the server does not wait for the rest of a packet. Only Read may
// call it, from within the Read of conn.
func (l *lockstep) owes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left == 0 && l.replied < l.asked
}

// Write implements io.Writer. The library calls it from one goroutine at a time.
func (l *lockstep) Write(p []byte) (int, error) {
	n, err := l.conn.Write(p)
	done := l.out.feed(p[:n])
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replied += done
	l.closed = l.closed || err != nil // the library goes on
	l.changed.Broadcast()
	return n, err
}

// Close implements io.Closer.
func (l *lockstep) Close() error {
	l.mu.Lock()
	l.closed = true
	l.changed.Broadcast()
	l.mu.Unlock()
	return l.conn.Close()
}

// framer counts the packets of a stream.
type framer struct {
	head []byte
	left uint32
}

// feed returns how many packets end in p.
func (f *framer) feed(p []byte) (ended uint64) {
	for len(p) > 0 {
		if f.left == 0 {
			n := min(4-len(f.head), len(p))
			f.head, p = append(f.head, p[:n]...), p[n:]
			if len(f.head) < 4 {
				return ended
			}
			f.left = binary.BigEndian.Uint32(f.head)
			f.head = f.head[:0]
			if f.left == 0 {
				ended++
			}
			continue
		}
		n := min(uint64(f.left), uint64(len(p)))
		p, f.left = p[n:], f.left-uint32(n) //nolint:gosec // at most left
		if f.left == 0 {
			ended++
		}
	}
	return ended
}
