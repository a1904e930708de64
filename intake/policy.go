package intake

import (
	"context"
	"io"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Config configures a Session.
type Config struct {
	// Tool is the receiver's name and version. Peer and Transport say where the sender is. The manifest has all
	// three.
	Tool, Peer, Transport string
	// Title finds the panic line in a log that is written to it.
	Title interface {
		io.Writer
		Line() string
	}
	// Codec compresses pages that do not come as page records.
	Codec kdumpfile.Codec
	// Window is the limit of chunk payloads in flight and in memory, in bytes. Workers is the number of goroutines
	// that decode them.
	Window  int64
	Workers int
	// CommitBytes is about the most page data, and CommitInterval the longest time, between two commits.
	CommitBytes    int64
	CommitInterval time.Duration
	// SealCommits says that the seal makes the last chunks durable, while it reads the dump back. SEALED is their ACK. A sender far
	// away gets the ACK first: a connection that breaks during a long seal then costs it nothing.
	SealCommits bool
	// OtherPlans says that Policy.OtherPlan has a place for a plan that differs from W's.
	OtherPlans bool
	// WaitEvery is the interval of WAIT messages during a long operation.
	WaitEvery time.Duration
	// KeepAlive says when the sender counts as dead. The sender has to send heartbeats at the same interval, unless
	// it is 0.
	KeepAlive protocol.KeepAlive
	// HelloTimeout limits the time up to the log. StallTimeout limits how long a welcomed sender may be alive and
	// send nothing. 0 sets no limit.
	HelloTimeout, StallTimeout time.Duration
}

// Stage is the progress of a Session.
type Stage int

// Stages that Policy.Enter gets.
const (
	Planning  Stage = iota // WELCOME was sent
	Receiving              // PLANOK was sent
	Sealing                // FINISH has come, or no more pages are wanted
)

// Content is what takes space.
type Content int

// What Policy.RoomFor is asked about.
const (
	Log   Content = iota // a piece of the log
	Plan                 // a piece of the plan, and what the dump's front needs beside it
	Pages                // the stored bytes of a chunk
)

// Policy decides where the dump of a Session goes, when its pages may come, and how many. Methods run in the
// goroutine of Session.Run unless their comment says otherwise. Their errors end the session. WireError says what the
// sender gets.
type Policy interface {
	// Log returns the logger for events of the session.
	Log() Logger
	// Open sets Session.W, after HELLO. The Session closes it at its end.
	Open(ctx context.Context) error
	// Hold reserves n bytes of memory for messages of a sender that is not yet admitted.
	Hold(n int64) error
	// Admit returns when pages may come. It completes WELCOME. If the sender gives up before, Admit returns its
	// FINISH. A *DeclinedError says that no pages are wanted.
	Admit(ctx context.Context, m *protocol.Welcome) (*protocol.Finish, error)
	// OtherPlan sets W to a writer with another plan or with none, for a sender whose plan differs from W's.
	OtherPlan(ctx context.Context, stored *dumpdir.PlanInfo) error
	// MakeRoom returns when there is space for the plan. It completes PLANOK. Otherwise it returns as Admit does.
	MakeRoom(ctx context.Context, plan *protocol.PlanEnd, m *protocol.PlanOK) (*protocol.Finish, error)
	// Enter is called at the beginning of a stage.
	Enter(stage Stage)
	// RoomFor returns an error if there is no space for bytes more of content, which are about to be written. For Pages
	// it runs in the workers.
	RoomFor(ctx context.Context, of Content, bytes int64) error
	// Received is called with the payload bytes of chunks, good or bad. It runs in the workers.
	Received(bytes int64)
	// Committed is called after each ACK, in its own goroutine.
	Committed(ctx context.Context) error
	// GoAhead reports whether the sender of a complete dump may go before the seal. Then Seal runs after SEALED, and its errors do not
	// reach the sender.
	GoAhead() bool
	// Seal seals the dump; see the function Seal.
	Seal(ctx context.Context, f *protocol.Finish) (Outcome, error)
}

// Logger takes messages with pairs of keys and values, as slog.Logger does.
type Logger interface {
	Debug(msg string, args ...any)
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// Outcome is the result of a seal.
type Outcome struct {
	dumpdir.Result
	Dir string
}

// DeclinedError ends a session because no pages are wanted. The dump is sealed as it is.
type DeclinedError struct {
	Reason string          // for SEALED
	Answer *protocol.Error // instead of SEALED; nil for SEALED
}

// Error returns the reason.
func (e *DeclinedError) Error() string { return e.Reason }

// Unlimited is the part of a Policy that admits everybody, never lacks space, and logs nothing.
type Unlimited struct{}

// Log returns a Logger that drops everything.
func (Unlimited) Log() Logger { return noLog{} }

// Hold grants everything.
func (Unlimited) Hold(int64) error { return nil }

// Enter does nothing.
func (Unlimited) Enter(Stage) {}

// Received does nothing.
func (Unlimited) Received(int64) {}

// GoAhead lets nobody go: the sender waits for the seal.
func (Unlimited) GoAhead() bool { return false }

// Committed does nothing.
func (Unlimited) Committed(context.Context) error { return nil }

type noLog struct{}

func (noLog) Debug(string, ...any) {}
func (noLog) Info(string, ...any)  {}
func (noLog) Warn(string, ...any)  {}
func (noLog) Error(string, ...any) {}
