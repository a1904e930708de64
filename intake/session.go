package intake

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// Session is the receiving side of one connection, from HELLO to SEALED, over one dumpdir.Writer. A Policy makes the
// decisions. Its methods may read the exported fields.
type Session struct {
	cfg    Config
	policy Policy
	conn   net.Conn
	wire   *protocol.Conn
	in     *inbox

	Began time.Time
	Hello *protocol.Hello // from Policy.Open on
	W     *dumpdir.Writer // set by Policy.Open and Policy.OtherPlan
	// Outcome is the result of the seal; nil before.
	Outcome *Outcome
	// Dismissed says that the sender got SEALED before the seal.
	Dismissed bool

	notes  []byte
	ram    []mem.Range
	warned []string
	closed bool // by Shutdown
}

// NewSession returns a Session over conn and begins to read. Shutdown closes conn.
func NewSession(conn net.Conn, cfg Config, policy Policy) *Session {
	wire := protocol.NewConn(conn, protocol.Receiver)
	return &Session{cfg: cfg, policy: policy, conn: conn, wire: wire, in: newInbox(wire), Began: time.Now()}
}

// Run runs the session. When it returns, all data is durable and W is closed, but the connection is open for a last
// message: see Shutdown. When ctx is done, Run returns its cause.
func (s *Session) Run(ctx context.Context) error {
	dead := s.keepAlive(ctx)
	err := s.serveWithin(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx) // the other error is a consequence
	}
	s.letGo(err)
	if gone := dead(); gone != nil && err != nil && ctx.Err() == nil && !s.Dismissed {
		err = gone // the session only saw that the connection was closed
	}
	return err
}

// Linger is how long Shutdown waits for the last message to reach the peer.
const Linger = 2 * time.Second

// Shutdown sends err to the sender, unless it is nil or io.EOF, and closes the connection. A second call does nothing.
func (s *Session) Shutdown(err error) error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.in.stop()
	err = s.wire.Shutdown(err, Linger)
	<-s.in.ended
	return err
}

// letGo commits the remaining chunks, and closes W.
func (s *Session) letGo(cause error) {
	s.notes, s.ram = nil, nil
	if s.W == nil {
		return
	}
	if s.Outcome == nil && !errors.Is(cause, protocol.CodeSuperseded) {
		if _, err := s.W.Commit(); err != nil {
			s.policy.Log().Debug("last commit failed", "error", err)
		}
	}
	if err := s.W.Close(); err != nil {
		s.policy.Log().Error("cannot close the dump", "error", err)
	}
}

// letGoPatience is how long a session may take to stop. If its peer has vanished, it may block in a write until the
// heartbeat timeout.
const letGoPatience = time.Second

// cutOff closes the connection if ctx is done and the session does not end soon: a sender that came back must not
// wait for its old connection. The returned function cancels it.
func (s *Session) cutOff(ctx context.Context) (release func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-done:
			return
		}
		timer := time.NewTimer(letGoPatience)
		defer timer.Stop()
		select {
		case <-timer.C:
			_ = s.conn.Close() // the session ends with an error and says so
		case <-done:
		}
	})
	return func() { close(done); wg.Wait() }
}

// keepAlive watches the connection until the returned function is called. That returns an error if the peer was dead.
func (s *Session) keepAlive(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	dead := make(chan error, 1)
	go func() { dead <- s.wire.KeepAlive(ctx, s.cfg.KeepAlive) }()
	return func() error {
		cancel()
		return <-dead
	}
}

func (s *Session) serveWithin(ctx context.Context) error {
	defer s.cutOff(ctx)()
	if s.cfg.HelloTimeout > 0 {
		if err := s.conn.SetReadDeadline(s.Began.Add(s.cfg.HelloTimeout)); err != nil {
			return err
		}
	}
	return s.serve(ctx)
}

// serve goes through the states of the protocol.
func (s *Session) serve(ctx context.Context) error {
	if err := s.readHello(ctx); err != nil {
		return err
	}
	if err := s.policy.Open(ctx); err != nil {
		return err
	}
	if err := s.readLog(ctx); err != nil {
		return err
	}
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if s.Complete() {
		return s.finish(ctx, &protocol.Finish{})
	}
	finish, err := s.readPages(ctx)
	var declined *DeclinedError
	if errors.As(err, &declined) {
		return s.decline(ctx, declined)
	}
	if err != nil {
		return err
	}
	return s.finish(ctx, finish)
}

func (s *Session) readHello(ctx context.Context) error {
	msg, err := s.in.next(ctx)
	if err != nil {
		return err
	}
	var ok bool
	if s.Hello, ok = msg.(*protocol.Hello); !ok {
		return outOfOrder(msg, "HELLO")
	}
	return nil
}

// Complete reports whether the dump needs nothing more.
func (s *Session) Complete() bool {
	res, ok := s.W.Result()
	return ok && res.State == dumpdir.StateComplete
}

// readPages is the part of a session from WELCOME to FINISH.
func (s *Session) readPages(ctx context.Context) (*protocol.Finish, error) {
	welcome := s.welcome()
	if finish, err := s.policy.Admit(ctx, welcome); err != nil || finish != nil {
		return finish, err
	}
	if err := s.Write(welcome); err != nil {
		return nil, err
	}
	if welcome.Collect == protocol.CollectLog {
		msg, err := s.in.nextWithin(ctx, s.cfg.StallTimeout)
		return asFinish(msg, err, "FINISH")
	}
	s.policy.Enter(Planning)
	ok := new(protocol.PlanOK)
	if finish, err := s.readPlan(ctx, ok); err != nil || finish != nil {
		return finish, err
	}
	ok.Have = have(s.W)
	if err := s.Write(ok); err != nil {
		return nil, err
	}
	s.policy.Enter(Receiving)
	return s.readChunks(ctx)
}

// welcome is WELCOME before the policy changes it.
func (s *Session) welcome() *protocol.Welcome {
	m := &protocol.Welcome{
		Tool: s.cfg.Tool, Collect: protocol.CollectAll, WindowBytes: uint64(s.cfg.Window),
		Encodings: encodings.Common(s.Hello.Encodings), Plan: s.namedPlan(), HaveChunks: s.W.Progress().Chunks,
	}
	if every := s.cfg.KeepAlive.Heartbeat; every > 0 {
		m.HeartbeatSec = max(1, uint64(every/time.Second))
	}
	return m
}

// finish seals the dump and sends the result. A sender that the policy lets go gets the result first.
func (s *Session) finish(ctx context.Context, f *protocol.Finish) error {
	if err := s.dismiss(f); err != nil {
		return err
	}
	if err := s.seal(ctx, f); err != nil || s.Dismissed {
		return err
	}
	return s.writeSealed("")
}

// dismiss sends SEALED before the seal and closes the connection, if the dump is complete and the policy allows it: then all the sender
// could wait for is the SHA-256 of the file, and its machine is down meanwhile.
func (s *Session) dismiss(f *protocol.Finish) error {
	if f.Reason != protocol.ReasonComplete || s.Complete() || !s.policy.GoAhead() {
		return nil
	}
	res, ok, err := s.W.Finish()
	if err != nil || !ok {
		return err
	}
	s.Dismissed = true
	if err := errors.Join(s.Write(sealed(s.Hello.DumpID, s.W.Dir(), &res)), s.Shutdown(nil)); err != nil {
		s.policy.Log().Debug("the sender has gone before SEALED; it gets it when it comes back", "error", err)
	}
	return nil
}

// decline seals a dump of which no pages are wanted.
func (s *Session) decline(ctx context.Context, why *DeclinedError) error {
	if err := s.seal(ctx, &protocol.Finish{Reason: protocol.ReasonLogOnly}); err != nil {
		return err
	}
	if why.Answer != nil {
		return why.Answer
	}
	return s.writeSealed(why.Reason)
}

// seal seals the dump. It sends WAIT meanwhile, because reading the dump back may take long.
func (s *Session) seal(ctx context.Context, f *protocol.Finish) error {
	s.policy.Enter(Sealing)
	return s.Busy(ctx, "the dump is sealed", func() error {
		end, err := s.policy.Seal(ctx, f)
		if err == nil {
			s.Outcome = &end
		}
		return err
	})
}

// writeSealed sends the result, with the reason if the receiver ended the dump.
func (s *Session) writeSealed(reason string) error {
	m := sealed(s.Hello.DumpID, s.Outcome.Dir, &s.Outcome.Result)
	m.Reason = reason
	return s.Write(m)
}

// Busy runs f, which does not read from the sender, and sends WAIT at intervals.
func (s *Session) Busy(ctx context.Context, what string, f func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		tick := time.NewTicker(s.cfg.WaitEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if s.Write(&protocol.Wait{Reason: what}) != nil {
				return // the session gets the error
			}
		}
	})
	return f()
}

// Write sends a message. It may be called from any goroutine.
func (s *Session) Write(msg protocol.Message) error { return s.wire.Write(msg) }

// Incoming returns the channel of the sender's next message, for a Policy that waits. The Policy passes the message
// to Finish.
func (s *Session) Incoming(ctx context.Context) <-chan Incoming { return s.in.messages(ctx) }

// Finish returns the FINISH of a sender that stops waiting, and an error for any other message.
func (s *Session) Finish(m Incoming) (*protocol.Finish, error) {
	msg, err := s.in.got(m)
	return asFinish(msg, err, "nothing before the wait is over")
}

// LogWarnings logs each warning of the sender once.
func (s *Session) LogWarnings(warnings []string) {
	for _, w := range warnings {
		if !slices.Contains(s.warned, w) {
			s.policy.Log().Warn("the sender warns", "text", w)
			s.warned = append(s.warned, w)
		}
	}
}

// Meta is the manifest's facts for a new dump of host.
func (s *Session) Meta(host string) dumpdir.Meta {
	m := meta(s.Hello)
	m.Host, m.StartTime, m.Transport, m.Peer, m.Receiver = host, s.Began, s.cfg.Transport, s.cfg.Peer, s.cfg.Tool
	return m
}

// UpdateMeta writes the present sender and the panic line, if it is known, to the manifest.
func (s *Session) UpdateMeta(line string) error {
	return s.W.UpdateMeta(func(m *dumpdir.Meta) { s.present(m, line) })
}

// present sets the present sender and the panic line, if it is known.
func (s *Session) present(m *dumpdir.Meta, line string) {
	if line != "" {
		m.PanicLine = line
	}
	m.Peer, m.Sender, m.Receiver = s.cfg.Peer, s.Hello.Tool, s.cfg.Tool
}

// asFinish returns msg if it is FINISH, else an error.
func asFinish(msg protocol.Message, err error, want string) (*protocol.Finish, error) {
	if err != nil {
		return nil, err
	}
	finish, ok := msg.(*protocol.Finish)
	if !ok {
		return nil, outOfOrder(msg, want)
	}
	return finish, nil
}

func outOfOrder(msg protocol.Message, want string) error {
	return protocol.Errorf(protocol.CodeOutOfOrder, "%s, expected %s", msg.Type(), want)
}
