package intake

import (
	"context"
	"io"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Config is how a Session works.
type Config struct {
	// Tool is the receiver's name and version, Peer and Transport say where the sender is: for the manifest.
	Tool, Peer, Transport string
	// Title finds the panic line in a log that is written to it.
	Title interface {
		io.Writer
		Line() string
	}
	// Codec compresses pages that do not come as page records.
	Codec kdumpfile.Codec
	// Window is how many bytes of chunk payloads may be on their way or in memory; Workers is how many goroutines
	// decode them.
	Window  int64
	Workers int
	// CommitBytes is about the most page data, and CommitInterval the longest time, between two commits.
	CommitBytes    int64
	CommitInterval time.Duration
	// OtherPlans is set where Policy.OtherPlan has a place for another plan than that of W.
	OtherPlans bool
	// WaitEvery is the time between two WAIT while something takes its time.
	WaitEvery time.Duration
	// KeepAlive says when the sender counts as gone. Its heartbeat is asked of the sender as well, unless it is 0.
	KeepAlive protocol.KeepAlive
	// HelloTimeout is how long everything up to the log may take, StallTimeout how long a sender that has been
	// welcomed may live and bring nothing. 0 sets no limit.
	HelloTimeout, StallTimeout time.Duration
}

// Stage is how far a Session is.
type Stage int

// Stages that a Policy is told of.
const (
	Planning  Stage = iota // WELCOME was sent
	Receiving              // PLANOK was sent
	Sealing                // FINISH has come, or nothing more is wanted
)

// Policy decides what a Session leaves open: where its dump goes, when pages may come, and how many. Methods run in the
// goroutine of Session.Run unless they say otherwise. Their errors end the session, and the sender hears
// of them as WireError has it.
type Policy interface {
	// Log returns where events of the session go.
	Log() Logger
	// Open sets Session.W, after HELLO. The Session closes it in the end.
	Open(ctx context.Context) error
	// Hold asks for n bytes of memory for what a sender says before it is admitted.
	Hold(n int64) error
	// Admit returns when pages may come, with the rest of WELCOME filled in. If the sender gives up before, it returns
	// its FINISH. A *DeclinedError says that no pages are wanted.
	Admit(ctx context.Context, m *protocol.Welcome) (*protocol.Finish, error)
	// OtherPlan is for a sender whose plan is not the one of W. It sets W to a writer with another plan, or none.
	OtherPlan(ctx context.Context, stored *dumpdir.PlanInfo) error
	// MakeRoom returns when there is room for the plan, with the rest of PLANOK filled in; else as Admit.
	MakeRoom(ctx context.Context, plan *protocol.PlanEnd, m *protocol.PlanOK) (*protocol.Finish, error)
	// Enter is called when a stage begins.
	Enter(stage Stage)
	// RoomFor returns an error if chunk has no room. It runs in the workers.
	RoomFor(ctx context.Context, chunk *dumpdir.Chunk) error
	// Received is told of chunks with so many bytes of payload, good or bad. It runs in the workers.
	Received(bytes int64)
	// Committed is called after each ACK, in a goroutine of its own.
	Committed(ctx context.Context) error
	// Seal makes the dump final; see the function Seal.
	Seal(ctx context.Context, f *protocol.Finish) (Outcome, error)
}

// Logger takes messages with pairs of names and values, as a slog.Logger does.
type Logger interface {
	Debug(msg string, args ...any)
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// Outcome is what a seal left.
type Outcome struct {
	dumpdir.Result
	Dir string
}

// DeclinedError ends a session from which no pages are wanted. The dump is sealed as it is.
type DeclinedError struct {
	Reason string          // for SEALED
	Answer *protocol.Error // in place of SEALED; nil for none
}

// Error returns the reason.
func (e *DeclinedError) Error() string { return e.Reason }

// Unlimited is the part of a Policy that admits everybody, has room for everything and tells nobody.
type Unlimited struct{}

// Log returns a Logger that drops everything.
func (Unlimited) Log() Logger { return noLog{} }

// Hold grants everything.
func (Unlimited) Hold(int64) error { return nil }

// Enter does nothing.
func (Unlimited) Enter(Stage) {}

// Received does nothing.
func (Unlimited) Received(int64) {}

// Committed does nothing.
func (Unlimited) Committed(context.Context) error { return nil }

type noLog struct{}

func (noLog) Debug(string, ...any) {}
func (noLog) Info(string, ...any)  {}
func (noLog) Warn(string, ...any)  {}
func (noLog) Error(string, ...any) {}
