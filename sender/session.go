package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/protocol"
)

// linger is how long the end of a session may take: telling the peer, and hearing its
// last word.
const linger = 2 * time.Second

// errDeadline means that our time is up and that the receiver is to seal what it has.
var errDeadline = errors.New("deadline")

// errSealed means that the receiver has sealed the dump before we were through.
var errSealed = errors.New("sealed early")

// session is one connection to a receiver, from HELLO to SEALED.
type session struct {
	*job
	target *target
	conn   *protocol.Conn
	flow   *flow
	// stop is done when the deadline has come.
	stop context.Context //nolint:containedctx // it outlives no call
	msgs chan protocol.Message
	// over is closed when the reader has ended, with its reason in readErr.
	over    chan struct{}
	readErr error
	reason  protocol.Reason
	text    string
	welcome *protocol.Welcome
	waited  protocol.Wait // that was last told
	queue   queuePlace
	// sending is set once it is known what the receiver has of the plan.
	sending bool
	// keepAlive begins to keep the connection alive, until its result is called.
	keepAlive func(protocol.KeepAlive) context.CancelFunc
}

// outcome is what a session that came to SEALED leaves.
type outcome struct {
	sealed   *protocol.Sealed
	reason   protocol.Reason
	declined bool
	known    bool
	why      string
}

// session runs one session with t over nc, which it closes. stop ends it early but in good order.
func (j *job) session(ctx, stop context.Context, nc net.Conn, t *target) (out *outcome, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{
		job: j, target: t, conn: protocol.NewConn(nc, protocol.Sender), stop: stop,
		msgs: make(chan protocol.Message, 8), over: make(chan struct{}),
	}
	s.flow = newFlow(0, j.meter.durable)
	j.meter.session(s.conn)
	defer j.meter.sessionOver()

	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.read(cancel) })
	wg.Go(func() { s.watchStall(ctx, cancel) })
	patience := queueLimit(t)
	wg.Go(func() { s.watchQueue(ctx, cancel, patience) })
	defer cancel(nil) // before the wait: the watchers end with ctx
	s.keepAlive = func(k protocol.KeepAlive) context.CancelFunc {
		ctx, stop := context.WithCancel(ctx)
		wg.Go(func() {
			if err := s.conn.KeepAlive(ctx, k); err != nil {
				cancel(err)
			}
		})
		return stop
	}
	// Whoever ends the session, a write or a read in progress must end as well.
	release := context.AfterFunc(ctx, func() { _ = s.conn.Shutdown(cancelled(ctx), linger) })
	defer func() {
		release()
		_ = s.conn.Shutdown(err, linger)
	}()
	out, err = s.run(ctx)
	s.account()
	return out, s.cause(ctx, err)
}

// account notes what the target has now.
func (s *session) account() {
	if !s.sending {
		return
	}
	pages, gained := s.meter.stored()
	s.target.pages = pages
	if gained > 0 {
		s.target.gained(time.Now())
	}
}

// cancelled returns what the receiver is told when ctx ends a session: nothing if it
// was the connection's own fault.
func cancelled(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) || errors.Is(cause, ErrDeadline) {
		return protocol.Errorf(protocol.CodeCancelled, "the sender was told to stop")
	}
	if stall, ok := errors.AsType[*stallError](cause); ok {
		return protocol.Errorf(protocol.CodeTimeout, "no progress for %v", stall.after.Round(time.Second))
	}
	if _, ok := errors.AsType[*queueError](cause); ok {
		return protocol.Errorf(protocol.CodeCancelled, "the sender asks another receiver, because this one has no room")
	}
	return nil
}

// cause returns the best reason for a failure: what the receiver said of it, rather
// than the broken pipe that came of it.
func (s *session) cause(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-s.over:
		if e, ok := errors.AsType[*protocol.Error](s.readErr); ok && e.Remote {
			return s.readErr
		}
	case <-time.After(linger):
	}
	// What ended ctx has closed the connection as well.
	cause := context.Cause(ctx)
	_, stalled := errors.AsType[*stallError](cause)
	_, queued := errors.AsType[*queueError](cause)
	if stalled || queued || errors.Is(err, context.Canceled) && cause != nil {
		return cause
	}
	return err
}

// run is the story of a session.
func (s *session) run(ctx context.Context) (*outcome, error) {
	stop := s.keepAlive(protocol.KeepAlive{})
	defer func() { stop() }()
	if err := s.greet(ctx); err != nil {
		return nil, err
	}
	s.startPlan()
	sealed, err := s.converse(ctx, func(k protocol.KeepAlive) {
		stop()
		stop = s.keepAlive(k)
	})
	var local *localError
	switch {
	case errors.Is(err, errDeadline):
		s.reason, s.text, err = protocol.ReasonDeadline, "", nil
	case errors.As(err, &local):
		// What the receiver has by now is worth sealing.
		s.log("error: %v", local)
		s.reason, s.text, err = protocol.ReasonOther, local.Error(), nil
	}
	if err != nil {
		return nil, err
	}
	if sealed == nil {
		if sealed, err = s.finish(ctx); err != nil {
			return nil, err
		}
	}
	out := &outcome{sealed: sealed, reason: s.reason}
	out.known = s.welcome == nil && s.reason == ""
	switch w := s.welcome; {
	case w == nil:
	case w.Collect != protocol.CollectAll:
		out.declined, out.why = true, w.Reason
	case s.reason == "" && sealed.State != protocol.StateComplete: // in place of PLANOK
		out.declined, out.why = true, sealed.Reason
	}
	return out, nil
}

// converse goes from the stored log to the last chunk. It returns SEALED when the
// receiver needed no FINISH. pulse is called with what the receiver says of heartbeats.
func (s *session) converse(ctx context.Context, pulse func(protocol.KeepAlive)) (*protocol.Sealed, error) {
	stored, sealed, err := expect[*protocol.LogStored](ctx, s, s.soon)
	if err != nil || sealed != nil {
		return sealed, err
	}
	s.target.logStored = true
	s.log("log stored (%d bytes)", stored.Bytes)
	s.meter.setState("waiting for the receiver")
	if s.welcome, sealed, err = expect[*protocol.Welcome](ctx, s, s.soon); err != nil || sealed != nil {
		return sealed, err
	}
	if n := s.welcome.HeartbeatSec; n > 0 {
		every := time.Duration(n) * time.Second
		pulse(protocol.KeepAlive{Heartbeat: every, Timeout: max(protocol.DefaultTimeout, 9*every/2)})
	}
	if s.welcome.Collect == protocol.CollectLog || s.opts.LogOnly {
		s.reason = protocol.ReasonLogOnly
		return nil, nil
	}
	s.meter.setState("planning")
	plan, err := s.awaitPlan(ctx, s.stop)
	if err != nil {
		return nil, err
	}
	ok, sealed, err := s.sendPlan(ctx, plan)
	if err != nil || sealed != nil {
		return sealed, err
	}
	return nil, s.sendChunks(ctx, plan, ok)
}

// sendPlan sends the plan, unless the receiver has it.
func (s *session) sendPlan(ctx context.Context, plan *Plan) (*protocol.PlanOK, *protocol.Sealed, error) {
	end := plan.end(s.ladder[0], s.src.warnings)
	end.Omitted = s.welcome.Plan != nil && *s.welcome.Plan == end.Hash
	if !end.Omitted {
		var wire error
		err := plan.Pieces(ctx, func(piece []byte) error {
			wire = s.write(&protocol.Plan{Data: piece})
			return wire
		})
		if err != nil && wire == nil && ctx.Err() == nil {
			err = &localError{err}
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if err := s.write(end); err != nil {
		return nil, nil, err
	}
	return expect[*protocol.PlanOK](ctx, s, s.later)
}

// sendChunks sends what the receiver wants and does not have.
func (s *session) sendChunks(ctx context.Context, plan *Plan, ok *protocol.PlanOK) error {
	tiers := numTiers
	s.reason = protocol.ReasonComplete
	if s.welcome.Collect == protocol.CollectEssential || ok.Collect == protocol.CollectEssential {
		tiers, s.reason, s.welcome.Collect = essentialTiers, protocol.ReasonEssential, protocol.CollectEssential
	}
	if ok.Note != "" {
		s.log("receiver: %s", ok.Note)
	}
	planned, had := plan.pagesIn(tiers, nil), plan.pagesIn(tiers, &ok.Have)
	s.meter.plan(planned, had)
	s.sending = true
	s.meter.setState("sending")
	s.log("%d pages (%s) to send, the receiver has %d of them", planned, bytesize.Format(planned*uint64(plan.Params.PageSize)), had)
	s.flow.setWindow(s.welcome.WindowBytes)
	r := &run{
		pipeline: s.pipeline(plan), session: s, tiers: tiers, have: ok.Have,
		adaptive: newAdaptiveEncoding(usable(s.ladder, s.welcome.Encodings)),
	}
	err := r.send(ctx)
	switch {
	case errors.Is(err, errSealed):
		return nil
	case err != nil:
		return err
	case s.stop.Err() != nil:
		return errDeadline
	}
	return nil
}

// usable returns those of a ladder that the receiver accepts.
func usable(ladder []protocol.Encoding, accepted protocol.Encodings) []protocol.Encoding {
	var list []protocol.Encoding
	for _, e := range ladder {
		if accepted.Has(e) {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return []protocol.Encoding{protocol.EncodingNone}
	}
	return list
}

// finish asks the receiver to seal what it has. The deadline does not hold here: what
// is there is to be sealed.
func (s *session) finish(ctx context.Context) (*protocol.Sealed, error) {
	lost := s.meter.Progress().Lost
	// All that was planned may have been sent and yet not be all that the file should hold.
	if lacks := s.src.account.Reason(); s.reason == protocol.ReasonComplete && (lost > 0 || lacks != "") {
		s.reason, s.text = protocol.ReasonUnreadable, strings.Trim(lacks+"; "+s.meter.lostText(), "; ")
	}
	s.meter.setState("sealing")
	// SEALED that came of itself is waiting already.
	select {
	case m := <-s.msgs:
		if sealed, ok := m.(*protocol.Sealed); ok {
			return sealed, nil
		}
	default:
	}
	fin := &protocol.Finish{Reason: s.reason, Text: protocol.CleanText(s.text, maxFinishText), LostPages: lost}
	if err := s.write(fin); err != nil {
		return nil, err
	}
	for {
		m, err := s.await(ctx, nil, s.sealing)
		if err != nil {
			return nil, fmt.Errorf("the receiver was asked to seal the dump and has not answered: %w", err)
		}
		// After a deadline, answers to what was asked before it may still come.
		if sealed, ok := m.(*protocol.Sealed); ok {
			return sealed, nil
		}
	}
}

// sealing is how long SEALED may take: what is on its way has to be acknowledged as ever,
// but then a whole file is read back.
func (s *session) sealing() time.Duration {
	if s.flow.inFlight() > 0 {
		return s.soon()
	}
	return s.later()
}

// write sends a message, for which the connection must have room.
func (s *session) write(m protocol.Message) error {
	defer s.stall.start(s.soon)()
	return s.conn.Write(m)
}

// maxFinishText keeps the text of FINISH within what the protocol allows.
const maxFinishText = 1024
