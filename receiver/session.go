package receiver

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
)

// session is one connection of one sender, and the intake.Policy by which it is received. Its methods run in the
// goroutine of run, unless they say otherwise.
type session struct {
	*intake.Session
	srv    *Server
	cfg    *Config
	peer   Peer
	log    *slog.Logger
	cancel context.CancelCauseFunc

	ref    storage.Ref
	claim  *claim
	second bool   // W is the challenger of the dump
	other  string // note to the sender about the other plan
	// contested means that there is a challenger, and it is undecided which one is better.
	contested bool

	held   int64             // bytes of Server.hello
	ticket *admission.Ticket // nil until the session is in the queue
	view   view

	decision admission.Decision // of the rules
	collect  protocol.Collect   // what the receiver wants
	note     string             // why it wants less than WELCOME said
	pages    uint64             // pages of the plan still to come
	need     uint64             // bytes that its plan needs at least

	account   *admission.Account
	early     *admission.Early // charges for the log and the plan
	planBytes uint64           // of these, for the plan
	counted   counted
}

func newSession(srv *Server, conn net.Conn, peer Peer) *session {
	cfg := &srv.cfg
	ss := &session{srv: srv, cfg: cfg, peer: peer, log: srv.logger(peer), account: cfg.Room.Account(peer.Host)}
	ss.early = ss.account.NewEarly()
	ss.Session = intake.NewSession(conn, intake.Config{
		Tool: cfg.Tool, Peer: peer.Addr, Transport: peer.Transport, Title: new(printk.TitleScanner), Codec: cfg.Codec,
		Window: srv.shares.window, Workers: srv.shares.workers,
		CommitBytes:    int64(min(cfg.CommitBytes, uint64(srv.shares.window)/2)), // half of the window is for what comes while a commit runs
		CommitInterval: cfg.CommitInterval, OtherPlans: true, WaitEvery: ss.heartbeat(),
		KeepAlive:    protocol.KeepAlive{Heartbeat: ss.heartbeat(), Timeout: cfg.IdleTimeout},
		HelloTimeout: helloPatience * cfg.IdleTimeout, StallTimeout: cfg.StallTimeout,
	}, ss)
	ss.view.enter(stateHello)
	return ss
}

// helloPatience is how many idle timeouts a sender has until its log is stored. A log takes much longer than one message.
const helloPatience = 10

// run runs the session. When it returns, only the store has anything of it.
func (ss *session) run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	defer cancel(nil)
	defer context.AfterFunc(parent, func() { cancel(errShutdown) })()
	ss.cancel = cancel
	err := ss.Run(ctx)
	ss.letGo()
	ss.tell(err)
	return err
}

// Log implements intake.Policy.
func (ss *session) Log() intake.Logger { return ss.log }

// connBytes is about the memory of a connection: buffers of TLS and of the protocol, stacks.
const connBytes = 128 << 10

// Open claims the dump and opens its writer, or that of a challenger if the dump is complete and the sender has more kinds
// of pages.
func (ss *session) Open(ctx context.Context) (err error) {
	if err := ss.takeOver(ctx); err != nil {
		return err
	}
	if err := ss.checkOwner(ctx); err != nil {
		return err
	}
	if ss.contested, err = ss.srv.promoteAhead(ctx, ss.ref); err != nil {
		return err
	}
	if ss.W, err = ss.openDump(ctx); err != nil {
		return err
	}
	ss.view.opened(ss.W)
	ss.counted = ss.present()
	if stored, ok := ss.W.Plan(); ok && ss.Complete() && asksForMore(ss.Hello.Level|ss.Hello.FileLevel, stored.DumpLevel) {
		return ss.openChallenger(ctx)
	}
	return nil
}

// takeOver claims the dump that HELLO names, and waits until the last session has released it.
func (ss *session) takeOver(ctx context.Context) error {
	if err := ss.Hold(connBytes); err != nil {
		return err
	}
	hello := ss.Hello
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
	ss.srv.expiry.cancel(ss.ref)
	ss.log.Info("session began", "sender", hello.Tool, "release", hello.Uts.Release, "attempt", hello.Attempt, "takes_over", before != nil)
	ss.LogWarnings(hello.Warnings)
	return before.wait(ctx)
}

// checkOwner refuses a dump id that is stored under another host: two machines never crash with the same registers, so one
// of the two names is wrong.
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

// Enter shows a stage in the session's status.
func (ss *session) Enter(stage intake.Stage) {
	ss.view.enter(map[intake.Stage]string{
		intake.Planning: statePlanning, intake.Receiving: stateReceiving, intake.Sealing: stateSealing,
	}[stage])
}

// Hold takes n bytes of the memory for sessions that are not admitted.
func (ss *session) Hold(n int64) error {
	if err := ss.srv.hello.acquire(ss.peer.Host, ss.held, n); err != nil {
		return err
	}
	ss.held += n
	return nil
}

// unhold returns n of them.
func (ss *session) unhold(n int64) {
	ss.srv.hello.release(ss.peer.Host, ss.held, n)
	ss.held -= n
}

// Admit makes the session wait in the queue, if the rules want pages of the dump.
func (ss *session) Admit(ctx context.Context, m *protocol.Welcome) (*protocol.Finish, error) {
	ss.settle()
	finish, err := ss.waitForSlot(ctx)
	ss.collect = protocol.CollectAll
	var declined *declinedError
	switch {
	case errors.As(err, &declined) && declined.decision.Action == admission.ActionLog:
		ss.collect = protocol.CollectLog // one that has not been welcomed is not sent away
		ss.leaveQueue()
	case err != nil:
		return nil, ss.declined(err)
	case ss.decision.Action == admission.ActionEssential:
		ss.collect = protocol.CollectEssential
	}
	m.Host, m.Collect, m.Reason = ss.ref.Host, ss.collect, ss.decision.Reason
	return finish, nil
}

// MakeRoom waits for room for the plan.
func (ss *session) MakeRoom(ctx context.Context, plan *protocol.PlanEnd, m *protocol.PlanOK) (*protocol.Finish, error) {
	finish, err := ss.makeRoom(ctx, plan)
	if err == nil && finish == nil {
		err = ss.roomForFront(ctx, plan)
	}
	if err != nil {
		return nil, ss.declined(err)
	}
	m.Note = ss.tidings()
	if ss.collect == protocol.CollectEssential {
		m.Collect = protocol.CollectEssential
	}
	return finish, nil
}

// tidings returns the note of PLANOK.
func (ss *session) tidings() string {
	if ss.other != "" && ss.note != "" {
		return ss.other + "; " + ss.note
	}
	return ss.other + ss.note
}

// declined returns err, or for a *declinedError the protocol error for the sender.
func (ss *session) declined(err error) error {
	var declined *declinedError
	if !errors.As(err, &declined) {
		return err
	}
	ss.leaveQueue()
	d := &declined.decision
	ss.note = d.Reason
	end := &intake.DeclinedError{Reason: d.Reason}
	if d.Action != admission.ActionLog {
		end.Answer = protocol.Errorf(protocol.CodeDeclined, "%s", d.Reason)
		end.Answer.Hint = "the log is stored; the rules of the receiver want no more of this dump"
	}
	return end
}

// leaveQueue releases the slot, or the place in the queue.
func (ss *session) leaveQueue() {
	if ss.ticket != nil {
		ss.ticket.Leave()
	}
}

// Received counts bytes of chunks. It runs in the workers.
func (ss *session) Received(bytes int64) { ss.srv.received(bytes) }

// Committed runs in the goroutine that commits.
func (ss *session) Committed(context.Context) error {
	ss.view.recordPages(ss.W.Progress().Present)
	return nil
}

// GoAhead lets the sender of a long dump go before the seal. With a challenger, it is not yet decided which dump the seal keeps.
func (ss *session) GoAhead() bool {
	return !ss.contested && !ss.second && ss.W.Progress().Bytes >= ss.cfg.SealAfter
}

// Seal seals the dump, and decides between it and its challenger.
func (ss *session) Seal(ctx context.Context, finish *protocol.Finish) (end intake.Outcome, err error) {
	defer ss.sealBehind()()
	reason := intake.Reason(finish)
	if asked := ss.asked(); asked != "" && (finish.Reason == protocol.ReasonEssential || finish.Reason == protocol.ReasonLogOnly) {
		reason += ": " + asked
	}
	_, again := ss.W.Result()
	if end.Result, err = intake.Seal(ctx, ss.W, finish, reason); err != nil {
		return end, err
	}
	// If the dump was complete before, the challenger stays for its own sender.
	if ss.contested && (ss.second || !again) {
		return ss.sealBest(ctx)
	}
	if !again {
		ss.srv.sealed(end.State)
	}
	end.Dir = ss.W.Dir()
	return end, nil
}

// sealBehind gives the slot to the next dump, if the sender of this one has gone, and no more dumps are sealed so than there are slots. The
// returned function ends that.
func (ss *session) sealBehind() (end func()) {
	if !ss.Dismissed {
		return func() {}
	}
	defer ss.log.Info("the dump is complete and durable; sealing it", "bytes", ss.W.Progress().Bytes)
	select {
	case ss.srv.sealers <- struct{}{}:
	default:
		return func() {}
	}
	if ss.Hold(writerBytes) == nil { // until letGo
		ss.leaveQueue()
	}
	return func() { <-ss.srv.sealers }
}

// asked returns why the receiver wants less than all.
func (ss *session) asked() string {
	if ss.note != "" {
		return ss.note
	}
	return ss.decision.Reason
}
