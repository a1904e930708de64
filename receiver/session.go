package receiver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
)

// session is one connection of one sender. Its methods run in the goroutine of run,
// unless they say otherwise.
type session struct {
	srv    *Server
	cfg    *Config
	conn   net.Conn
	wire   *protocol.Conn
	in     *inbox
	peer   Peer
	log    *slog.Logger
	begin  time.Time
	cancel context.CancelCauseFunc

	hello  *protocol.Hello
	ref    storage.Ref
	claim  *claim
	w      *dumpdir.Writer
	second bool   // w is the challenger of the dump
	other  string // what another plan has, for the sender to know
	// contested: there is a challenger, and nothing was decided yet.
	contested bool

	notes  []byte
	ram    []mem.Range
	held   int64 // bytes of Server.hello
	warned []string
	ticket *admission.Ticket // nil until the session is in the queue
	view   view

	decision     admission.Decision // of the rules
	collect      protocol.Collect   // what is asked for
	note         string             // why it is less than WELCOME said
	pages        uint64             // of the plan that are to come
	need         uint64             // bytes that its plan needs at least
	shareChecked time.Time          // when the host's share was looked at

	progress dumpdir.Progress // at the session's end
	result   *dumpdir.Result  // once the dump is sealed
	dir      string           // where it is then
}

func newSession(srv *Server, conn net.Conn, peer Peer) *session {
	wire := protocol.NewConn(conn, protocol.Receiver)
	ss := &session{
		srv: srv, cfg: &srv.cfg, conn: conn, wire: wire, peer: peer, begin: time.Now(),
		log: srv.logger(peer), in: newInbox(wire),
	}
	ss.view.enter(stateHello)
	return ss
}

// run is the whole session. When it returns, nothing of it is left but what the
// store has.
func (ss *session) run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	defer cancel(nil)
	defer context.AfterFunc(parent, func() { cancel(errShutdown) })()
	ss.cancel = cancel
	err := ss.conn.SetReadDeadline(ss.begin.Add(helloPatience * ss.cfg.IdleTimeout))
	if err == nil {
		release := ss.cutOff(ctx)
		alive := ss.keepAlive(ctx)
		err = ss.serve(ctx)
		if dead := alive(); dead != nil {
			err = dead // it closed the connection, which is all that serve saw
		}
		release()
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx) // whatever failed, failed because of that
	}
	ss.letGo(err)
	ss.tell(err)
	return err
}

// letGoPatience is how long a session may take to stop. One whose peer is gone without
// a word can hang in a write for as long as the peer has to be heard.
const letGoPatience = time.Second

// cutOff closes the connection when ctx is done and the session does not end by itself
// soon: a sender that came back is not to wait for its own old connection. The
// returned function calls it off.
func (ss *session) cutOff(ctx context.Context) (release func()) {
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
			_ = ss.conn.Close() // the session ends with an error and says so
		case <-done:
		}
	})
	return func() { close(done); wg.Wait() }
}

// helloPatience is how many idle timeouts a sender has until its log is stored: a
// log takes much longer than one message, but not for ever.
const helloPatience = 10

// keepAlive watches the connection until the returned function is called, which says
// whether the peer was found dead.
func (ss *session) keepAlive(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	dead := make(chan error, 1)
	go func() {
		dead <- ss.wire.KeepAlive(ctx, protocol.KeepAlive{Heartbeat: ss.heartbeat(), Timeout: ss.cfg.IdleTimeout})
	}()
	return func() error {
		cancel()
		return <-dead
	}
}

// serve goes through the states of the protocol.
func (ss *session) serve(ctx context.Context) error {
	if err := ss.readHello(ctx); err != nil {
		return err
	}
	if err := ss.open(ctx); err != nil {
		return err
	}
	if err := ss.readFacts(ctx); err != nil {
		return err
	}
	if err := ss.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if ss.complete() {
		return ss.finish(ctx, &protocol.Finish{})
	}
	finish, err := ss.waitInLine(ctx)
	if err == nil && finish == nil {
		finish, err = ss.takePages(ctx)
	}
	var declined *declinedError
	if errors.As(err, &declined) {
		return ss.decline(ctx, &declined.decision)
	}
	if err != nil {
		return err
	}
	return ss.finish(ctx, finish)
}

// connBytes is about what a connection holds for itself: buffers of TLS and of the
// protocol, stacks.
const connBytes = 128 << 10

// readHello takes the first message and the right to write the dump it names.
func (ss *session) readHello(ctx context.Context) error {
	msg, err := ss.in.next(ctx)
	if err != nil {
		return err
	}
	hello, ok := msg.(*protocol.Hello)
	if !ok {
		return outOfOrder(msg, "HELLO")
	}
	if err := ss.hold(connBytes); err != nil {
		return err
	}
	ss.hello = hello
	ss.ref = storage.Ref{Host: ss.peer.Host, ID: hello.DumpID}
	ss.log = ss.log.With("dump", ss.ref.ID)
	if err := storage.CheckRef(ss.ref); err != nil {
		return err
	}
	mine, before, err := ss.srv.claim(ss.ref, ss.cancel)
	if err != nil {
		return foreignDump()
	}
	ss.claim = mine
	ss.srv.expiry.forget(ss.ref)
	ss.log.Info("session began", "sender", hello.Tool, "release", hello.Uts.Release, "attempt", hello.Attempt, "takes_over", before != nil)
	ss.logWarnings(hello.Warnings)
	return before.wait(ctx)
}

// logWarnings logs what the sender warns of, once each.
func (ss *session) logWarnings(warnings []string) {
	for _, w := range warnings {
		if !slices.Contains(ss.warned, w) {
			ss.log.Warn("the sender warns", "text", w)
			ss.warned = append(ss.warned, w)
		}
	}
}

// open gets the writer of the dump, or of a challenger if the dump is complete and the
// sender has more to offer.
func (ss *session) open(ctx context.Context) (err error) {
	if err := ss.checkOwner(ctx); err != nil {
		return err
	}
	if ss.contested, err = ss.srv.promoteAhead(ctx, ss.ref); err != nil {
		return err
	}
	if ss.w, err = ss.openDump(ctx); err != nil {
		return err
	}
	ss.view.opened(ss.w)
	if stored, ok := ss.w.Plan(); ok && ss.complete() && asksForMore(ss.hello.Level|ss.hello.FileLevel, stored.DumpLevel) {
		return ss.challenge(ctx)
	}
	return nil
}

// checkOwner refuses a dump id that is filed under another host: two machines never
// crash with the same registers, so one of them is not who it says.
func (ss *session) checkOwner(ctx context.Context) error {
	entry, err := ss.cfg.Store.Find(ctx, ss.ref.ID)
	var several *storage.AmbiguousError
	switch {
	case errors.As(err, &several):
		for _, c := range several.Candidates {
			if c.ID == ss.ref.ID && c.Host == ss.ref.Host {
				return nil
			}
		}
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return err
	case entry.ID != ss.ref.ID || entry.Host == ss.ref.Host:
		return nil
	}
	return foreignDump()
}

func foreignDump() error {
	err := protocol.Errorf(protocol.CodeIdentity, "%w", errForeign)
	err.Hint = "does this machine use another one's identity file?"
	return err
}

// meta is what the manifest says of a new dump.
func (ss *session) meta() dumpdir.Meta {
	meta := intake.Meta(ss.hello)
	meta.Host, meta.StartTime, meta.Transport, meta.Peer, meta.Receiver = ss.ref.Host, ss.begin, ss.peer.Transport, ss.peer.Addr, ss.cfg.Tool
	return meta
}

// asFinish returns msg if it is the last of a sender, an error for any other one.
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

// welcome tells the sender what is wanted of it.
func (ss *session) welcome(collect protocol.Collect) error {
	ss.collect = collect
	return ss.write(&protocol.Welcome{
		Tool: ss.cfg.Tool, Host: ss.ref.Host, Collect: collect, Reason: ss.decision.Reason,
		WindowBytes:  uint64(ss.srv.shares.window), //nolint:gosec // positive
		Encodings:    intake.Encodings.Common(ss.hello.Encodings),
		HeartbeatSec: max(1, uint64(ss.heartbeat()/time.Second)), //nolint:gosec // positive
		HaveChunks:   ss.w.Progress().Chunks,
	})
}

// finish makes the dump final, and tells the sender what it is.
func (ss *session) finish(ctx context.Context, finish *protocol.Finish) error {
	reason := intake.Reason(finish)
	if asked := ss.asked(); asked != "" && (finish.Reason == protocol.ReasonEssential || finish.Reason == protocol.ReasonLogOnly) {
		reason += ": " + asked
	}
	if err := ss.seal(ctx, finish, reason); err != nil {
		return err
	}
	return ss.sendSealed("")
}

// asked is why less than all was asked for.
func (ss *session) asked() string {
	if ss.note != "" {
		return ss.note
	}
	return ss.decision.Reason
}

// seal makes the dump final. Reading it back may take long, and the sender hears from us meanwhile.
func (ss *session) seal(ctx context.Context, finish *protocol.Finish, reason string) error {
	ss.view.enter(stateSealing)
	_, again := ss.w.Result()
	return ss.busy(ctx, "the dump is sealed", func() error {
		res, err := intake.Seal(ctx, ss.w, finish, reason)
		if err != nil {
			return err
		}
		// A dump that was complete before leaves its challenger to the sender of that one.
		if ss.contested && (ss.second || !again) {
			return ss.settle(ctx)
		}
		ss.result, ss.dir = &res, ss.w.Dir()
		if !again {
			ss.srv.sealed(res.State)
		}
		return nil
	})
}

// decline ends a session from which no pages are wanted: at once, or, for a sender that
// has not been welcomed and is not to be sent away, by asking for the log only.
func (ss *session) decline(ctx context.Context, d *admission.Decision) error {
	if ss.ticket != nil {
		ss.ticket.Leave() // its slot is of no use to it
	}
	if d.Action == admission.ActionLog && ss.collect == "" {
		if err := ss.welcome(protocol.CollectLog); err != nil {
			return err
		}
		msg, err := ss.in.nextWithin(ctx, ss.cfg.StallTimeout)
		finish, err := asFinish(msg, err, "FINISH")
		if err != nil {
			return err
		}
		return ss.finish(ctx, finish)
	}
	finish := &protocol.Finish{Reason: protocol.ReasonLogOnly}
	if err := ss.seal(ctx, finish, intake.Reason(finish)+": "+d.Reason); err != nil {
		return err
	}
	if d.Action == admission.ActionLog {
		return ss.sendSealed(d.Reason)
	}
	err := protocol.Errorf(protocol.CodeDeclined, "%s", d.Reason)
	err.Hint = "the log is stored; the rules of the receiver want no more of this dump"
	return err
}

// busy runs f, which does not read from the sender, and tells the sender now and then
// that it has to wait.
func (ss *session) busy(ctx context.Context, what string, f func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		tick := time.NewTicker(ss.heartbeat())
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if ss.write(&protocol.Wait{Reason: what}) != nil {
				return // the session finds out
			}
		}
	})
	return f()
}

// sendSealed tells the sender what its dump is, and why no more of it is wanted if it did not end it.
func (ss *session) sendSealed(reason string) error {
	sealed := intake.Sealed(ss.ref.ID, ss.dir, ss.result)
	sealed.Reason = reason
	return ss.write(sealed)
}

// write sends a message. It may be called from any goroutine.
func (ss *session) write(msg protocol.Message) error { return ss.wire.Write(msg) }

func outOfOrder(msg protocol.Message, want string) error {
	return protocol.Errorf(protocol.CodeOutOfOrder, "%s, expected %s", msg.Type(), want)
}
