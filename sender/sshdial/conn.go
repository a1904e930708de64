package sshdial

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// line is the TCP connection of a session. It notes why it ended, because its channels only see an EOF.
type line struct {
	net.Conn
	mu  sync.Mutex
	err error // the first one
}

func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err != nil {
		l.setErr(err)
	}
	return n, err
}

func (l *line) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	if err != nil {
		l.setErr(err)
	}
	return n, err
}

func (l *line) setErr(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // SSH closes channels before the line
	}
	if l.err == nil {
		l.err = err
	}
}

// because returns why the line ended, or err if it has not ended.
func (l *line) because(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	return err
}

// expire ends the line after a deadline.
func (l *line) expire() {
	l.setErr(os.ErrDeadlineExceeded)
	_ = l.Close() // the line is lost anyway
}

// conn is a channel as a net.Conn. Close closes the line, so that neither a peer nor a network that takes no data can block
// it. A read or write deadline closes the line too, because half of a packet cannot be taken back.
type conn struct {
	ssh.Channel
	line *line
	said *said

	// out serializes Write and CloseWrite. The channel does not do that.
	out   sync.Mutex
	ended bool // under out

	mu          sync.Mutex
	read, write *time.Timer
}

func newConn(ch ssh.Channel, l *line) *conn {
	return &conn{Channel: ch, line: l, said: listen(ch.Stderr())}
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Channel.Read(p)
	if err == nil {
		return n, nil
	}
	if words := c.said.last(); words != "" {
		return n, &wordsError{err: c.line.because(err), words: words}
	}
	return n, c.line.because(err)
}

func (c *conn) Write(p []byte) (int, error) {
	c.out.Lock()
	defer c.out.Unlock()
	n, err := c.Channel.Write(p)
	if err != nil {
		err = c.line.because(err)
	}
	return n, err
}

// CloseWrite waits for a Write in progress, like that of TLS.
func (c *conn) CloseWrite() error {
	c.out.Lock()
	defer c.out.Unlock()
	if c.ended {
		return nil
	}
	c.ended = true
	return c.Channel.CloseWrite()
}

func (c *conn) Close() error {
	err := c.SetDeadline(time.Time{})
	return errors.Join(err, c.line.Close())
}

func (c *conn) LocalAddr() net.Addr  { return c.line.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr { return c.line.RemoteAddr() }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error  { return c.set(&c.read, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.set(&c.write, t) }

func (c *conn) set(timer **time.Timer, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	if !t.IsZero() {
		*timer = time.AfterFunc(time.Until(t), c.line.expire)
	}
	return nil
}

// wordsError is the end of a channel, with what the server wrote to standard error.
type wordsError struct {
	err   error
	words string
}

func (e *wordsError) Error() string { return fmt.Sprintf("%v; the server says: %s", e.err, e.words) }
func (e *wordsError) Unwrap() error { return e.err }

// said keeps the beginning of what a server writes to standard error.
type said struct {
	done  chan struct{}
	words []byte
}

func listen(r io.Reader) *said {
	s := &said{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		buf := make([]byte, 1<<10)
		for {
			n, err := r.Read(buf)
			s.words = append(s.words, buf[:min(n, maxQuoted+1-len(s.words))]...)
			if err != nil {
				return
			}
		}
	}()
	return s
}

// last returns the text. It waits for the end of the channel.
func (s *said) last() string {
	<-s.done
	return clean(string(s.words))
}
