package sender

import (
	"context"
	"crypto/rand"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender/depot"
)

// depotLinger is how long a depot may take to release its dump.
const depotLinger = 5 * time.Second

// owner identifies this process among others that write to the same server.
var owner = sync.OnceValue(rand.Text)

// depotConn is the near end of a depot.
type depotConn struct {
	*protocol.PipeEnd
	cancel context.CancelFunc
	line   line
	done   chan struct{} // closed when the depot has ended
	once   sync.Once
}

// line is what a depot has of the connection to its server.
type line struct {
	// local means that the depot writes into a local directory. No receiver seals what the sender leaves there.
	local bool
	// keepAlive runs beside the depot until its context ends. It may be nil.
	keepAlive func(context.Context)
	// cut ends all waiting for the server, close the connection when the depot has ended.
	cut, close func()
}

// startDepot starts a depot in this process and returns the connection to it. It does not end with ctx.
func startDepot(ctx context.Context, conf depot.Config, l line) net.Conn {
	near, far := protocol.Pipe()
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &depotConn{PipeEnd: near, cancel: cancel, line: l, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		var wg sync.WaitGroup
		if l.keepAlive != nil {
			wg.Go(func() { l.keepAlive(work) })
		}
		_ = depot.Serve(work, far, conf) // the sender gets the error over the pipe
		cancel()
		l.close()
		wg.Wait()
	}()
	return c
}

// Close ends the depot, which first releases its dump if it can.
func (c *depotConn) Close() error {
	err := c.PipeEnd.Close()
	c.once.Do(func() {
		c.cancel()
		select {
		case <-c.done:
		case <-time.After(depotLinger):
			c.line.cut()
			<-c.done
		}
	})
	return err
}

// addressName returns a directory name for an address.
func addressName(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	host, _, _ = strings.Cut(host, "%")
	return "ip-" + strings.ReplaceAll(host, ":", "-")
}
