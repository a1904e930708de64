package sshd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// DefaultClientIdle is how long a stock client may be silent. makedumpfile says nothing while it looks through the memory of a
// machine, which takes a minute for some hundred GiB and may do so again in the midst of a dump; the largest have tens of TiB.
const DefaultClientIdle = time.Hour

// silentError ends what a client does that is connected and silent. Its text is for the client.
type silentError struct{ limit time.Duration }

func (e *silentError) Error() string {
	return fmt.Sprintf("no data for %v: the connection is closed; what arrived is kept", e.limit)
}

// idleConn is the channel of a client that is waited for so long and no longer: for its next bytes, and for it to take ours.
type idleConn struct {
	*channelConn
	limit time.Duration
	// owed, if set, reports whether it is the client that waits.
	owed func() bool

	signMu sync.Mutex
	sign   time.Time // when the client's time began: with a Read, or when it took something
}

// begin begins the client's time anew.
func (p *idleConn) begin() {
	p.signMu.Lock()
	defer p.signMu.Unlock()
	p.sign = time.Now()
}

// over returns when the client's time is over.
func (p *idleConn) over() time.Time {
	p.signMu.Lock()
	defer p.signMu.Unlock()
	return p.sign.Add(p.limit)
}

// Read returns a *silentError when nothing came.
func (p *idleConn) Read(b []byte) (int, error) {
	p.begin()
	for {
		if err := p.SetReadDeadline(p.over()); err != nil {
			return 0, err
		}
		n, err := p.channelConn.Read(b)
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return n, err
		case p.owed != nil && p.owed():
			p.begin()
		case !time.Now().Before(p.over()): // and not just answered
			return n, &silentError{p.limit}
		}
	}
}

// Write closes the channel when the client takes nothing. What it was waiting for begins its time anew.
func (p *idleConn) Write(b []byte) (int, error) {
	n, err := p.guard(p.channelConn).Write(b)
	if err == nil {
		p.begin()
	}
	return n, err
}

// stderr writes to the client's standard error, as Write does.
func (p *idleConn) stderr() io.Writer { return p.guard(p.Stderr()) }

func (p *idleConn) guard(w io.Writer) io.Writer {
	return &guardedWriter{w: w, limit: p.limit, stop: func() { _ = p.closeWith(exitFailure) }}
}

// guardedWriter calls stop, which has to end a Write, when one takes longer than limit: SSH lets a peer take
// nothing for ever.
type guardedWriter struct {
	w     io.Writer
	limit time.Duration
	stop  func()
}

func (g *guardedWriter) Write(b []byte) (int, error) {
	timer := time.AfterFunc(g.limit, g.stop)
	defer timer.Stop()
	return g.w.Write(b)
}

// tell writes a line to the standard error of a client that may not read it.
func (ch *channel) tell(text string, status uint32) {
	w := &guardedWriter{w: ch.Stderr(), limit: ch.c.srv.cfg.Idle, stop: func() { _ = ch.finish(status) }}
	_, _ = fmt.Fprintf(w, "corehaul: %s\n", text) // whoever is gone does not hear it
}
