package intake

import (
	"context"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// inbox reads a connection in its own goroutine, one message at a time, so that a
// session can wait for other things too. A message is valid until the next call of
// messages or next, as with protocol.Conn.Read; chunks until they are released.
type inbox struct {
	wire  *protocol.Conn
	out   chan Incoming
	more  chan struct{} // the reader may read on
	quit  chan struct{}
	ended chan struct{} // closed when the reader has ended
	armed bool          // the reader was told to read the next message
}

// Incoming is what came from the sender.
type Incoming struct {
	msg protocol.Message
	err error
}

// newInbox starts to read.
func newInbox(wire *protocol.Conn) *inbox {
	in := &inbox{
		wire: wire, armed: true, out: make(chan Incoming), more: make(chan struct{}),
		quit: make(chan struct{}), ended: make(chan struct{}),
	}
	go in.read()
	return in
}

func (in *inbox) read() {
	defer close(in.ended)
	for {
		msg, err := in.wire.Read()
		select {
		case in.out <- Incoming{msg, err}:
		case <-in.quit:
			return
		}
		if err != nil {
			return
		}
		select {
		case <-in.more:
		case <-in.quit:
			return
		}
	}
}

// messages tells the reader that the last message was dealt with and returns where
// the next one comes. Whoever receives from it calls got.
func (in *inbox) messages(ctx context.Context) <-chan Incoming {
	if in.armed {
		return in.out
	}
	in.armed = true
	select {
	case in.more <- struct{}{}:
	case <-in.ended:
		// The reader failed and said so before; nothing more comes.
	case <-ctx.Done():
	}
	return in.out
}

// got notes that a message was received from messages.
func (in *inbox) got(r Incoming) (protocol.Message, error) {
	in.armed = false
	return r.msg, r.err
}

// next returns the next message, or the cause of ctx's end.
func (in *inbox) next(ctx context.Context) (protocol.Message, error) {
	select {
	case r := <-in.messages(ctx):
		return in.got(r)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// nextWithin is next for a message that has to come within d, unless d is 0.
func (in *inbox) nextWithin(ctx context.Context, d time.Duration) (protocol.Message, error) {
	if d == 0 {
		return in.next(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case r := <-in.messages(ctx):
		return in.got(r)
	case <-timer.C:
		err := protocol.Errorf(protocol.CodeTimeout, "the sender lives, but has sent nothing for %v", d)
		err.RetryAfter = BusyRetryAfter
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// stop lets the reader end as soon as its Read returns.
func (in *inbox) stop() { close(in.quit) }
