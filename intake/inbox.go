package intake

import (
	"context"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// inbox reads a connection in its own goroutine, one message at a time, so that a session can wait for other events,
// too. A message is valid until the next call of messages or next, as with protocol.Conn.Read. Chunks are valid until
// they are released.
type inbox struct {
	wire  *protocol.Conn
	out   chan Incoming
	more  chan struct{} // the reader may read the next message
	quit  chan struct{}
	ended chan struct{} // closed when the reader has ended
	armed bool          // the reader was told to read the next message
}

// Incoming is a message of the sender, or the error of reading it.
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

// messages lets the reader continue and returns the channel of the next message. The receiver of the message calls
// got.
func (in *inbox) messages(ctx context.Context) <-chan Incoming {
	if in.armed {
		return in.out
	}
	in.armed = true
	select {
	case in.more <- struct{}{}:
	case <-in.ended:
		// The reader has failed and returned its error; nothing more comes.
	case <-ctx.Done():
	}
	return in.out
}

// got records that a message was received from messages.
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

// nextWithin is next for a message that must come within d. 0 is no limit.
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
		err := protocol.Errorf(protocol.CodeTimeout, "the sender is alive, but has sent nothing for %v", d)
		err.RetryAfter = BusyRetryAfter
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// stop lets the reader end as soon as its Read returns.
func (in *inbox) stop() { close(in.quit) }
