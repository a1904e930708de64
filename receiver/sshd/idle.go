package sshd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// DefaultClientIdle is how long a stock client may be silent. makedumpfile sends nothing while it scans the memory, before a
// dump and perhaps again during it. That takes a minute for some hundred GiB. The largest machines have tens of TiB.
const DefaultClientIdle = time.Hour

// silentError ends the request of a client that is connected and silent. Its text is for the client.
type silentError struct{ limit time.Duration }

func (e *silentError) Error() string {
	return fmt.Sprintf("no data for %v: the connection is closed; what arrived is kept", e.limit)
}

// idleConn is a channel with a limit on how long the server waits for the client to send or take bytes.
type idleConn struct {
	*channelConn
	limit time.Duration
	// owed, if set, reports whether it is the client that waits.
	owed func() bool

	signMu sync.Mutex
	sign   time.Time // start of the client's time: a Read, or when it last took bytes
}

// begin restarts the client's time.
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

// Read returns a *silentError if nothing came in time.
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

// Write closes the channel if the client takes nothing. Otherwise the client's time starts again.
func (p *idleConn) Write(b []byte) (int, error) {
	n, err := p.guard(p.channelConn).Write(b)
	if err == nil {
		p.begin()
	}
	return n, err
}

// stderr returns a writer to the client's standard error, with the same limit as Write.
func (p *idleConn) stderr() io.Writer { return p.guard(p.Stderr()) }

func (p *idleConn) guard(w io.Writer) io.Writer {
	return &guardedWriter{w: w, limit: p.limit, stop: func() { _ = p.closeWith(exitFailure) }}
}

// guardedWriter calls stop, which has to end a Write, if one takes longer than limit. In SSH, a peer may take nothing for
// ever.
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

// reportError writes a line to the client's standard error. If the client does not read it, reportError ends the channel with
// status.
func (ch *channel) reportError(text string, status uint32) {
	w := &guardedWriter{w: ch.Stderr(), limit: ch.c.srv.cfg.Idle, stop: func() { _ = ch.finish(status) }}
	_, _ = fmt.Fprintf(w, "corehaul: %s\n", text) // the client may be gone
}
