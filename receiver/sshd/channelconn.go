package sshd

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// readBytes is the length of one read: an SSH packet has 32 KiB.
const readBytes = 64 << 10

// channelConn is a channel as a net.Conn. Its Read has a deadline, which a channel's own has not, because another
// goroutine reads one piece ahead. Writes have no deadline. Close ends a Write that hangs.
type channelConn struct {
	*channel
	data   chan []byte   // a piece from the reader
	more   chan struct{} // the piece was used up
	once   sync.Once
	closed chan struct{}
	ended  chan struct{} // closed when the reader has ended
	err    error         // of the reader, once ended is closed

	mu       sync.Mutex // Read
	rest     []byte
	deadline deadline
}

func newChannelConn(ch *channel) *channelConn {
	c := &channelConn{
		channel: ch, data: make(chan []byte), more: make(chan struct{}), closed: make(chan struct{}), ended: make(chan struct{}),
		deadline: deadline{passed: make(chan struct{})},
	}
	go c.readAhead()
	return c
}

func (c *channelConn) readAhead() {
	defer close(c.ended)
	buf := make([]byte, readBytes)
	for {
		n, err := c.Channel.Read(buf)
		if n > 0 {
			select {
			case c.data <- buf[:n]:
			case <-c.closed:
			}
			select {
			case <-c.more:
			case <-c.closed:
			}
		}
		if err != nil {
			c.err = err
			return
		}
	}
}

// Read returns os.ErrDeadlineExceeded after the deadline, net.ErrClosed after Close, and io.EOF if the peer has ended the
// stream or is gone.
func (c *channelConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.rest) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	if len(c.rest) == 0 {
		select {
		case c.more <- struct{}{}:
		case <-c.closed:
		}
	}
	return n, nil
}

// next waits for a piece.
func (c *channelConn) next() error {
	passed := c.deadline.wait()
	select {
	case <-c.closed:
		return net.ErrClosed
	case <-passed:
		return os.ErrDeadlineExceeded
	default:
	}
	select {
	case c.rest = <-c.data:
		return nil
	case <-c.ended:
		return c.err
	case <-c.closed:
		return net.ErrClosed
	case <-passed:
		return os.ErrDeadlineExceeded
	}
}

// Close closes the channel with exitOK. The stream has already said whether the dump was stored.
func (c *channelConn) Close() error { return c.closeWith(exitOK) }

// closeWith closes the channel with an exit status. Only the first call counts.
func (c *channelConn) closeWith(status uint32) error {
	first := false
	c.once.Do(func() { close(c.closed); first = true })
	if !first {
		return nil
	}
	err := c.finish(status)
	if errors.Is(err, io.EOF) {
		return nil // the peer closed it first
	}
	return err
}

// end closes the channel and waits for its goroutines.
func (c *channelConn) end() {
	_ = c.Close() // usually the second time
	<-c.ended
}

// LocalAddr returns the server's address.
func (c *channelConn) LocalAddr() net.Addr { return c.c.ssh.LocalAddr() }

// RemoteAddr returns the peer's address.
func (c *channelConn) RemoteAddr() net.Addr { return c.c.ssh.RemoteAddr() }

// SetReadDeadline sets when Read stops waiting. The zero time means never.
func (c *channelConn) SetReadDeadline(t time.Time) error {
	c.deadline.set(t)
	return nil
}

// SetWriteDeadline is not supported.
func (c *channelConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// SetDeadline is not supported.
func (c *channelConn) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// deadline is a time that can be changed while others wait for it.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	passed chan struct{} // closed at the time
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // the timer has fired and is closing it
	}
	d.timer = nil
	select {
	case <-d.passed:
		d.passed = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	passed := d.passed
	d.timer = time.AfterFunc(time.Until(t), func() { close(passed) })
}

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}
