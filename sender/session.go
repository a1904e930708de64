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

// linger bounds the end of a session: our last message to the receiver, and its last answer.
const linger = 2 * time.Second

// errDeadline means that the deadline has come and the receiver is to seal what it has.
var errDeadline = errors.New("deadline")

// errSealed means that the receiver sealed the dump before all chunks were sent.
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
	// over is closed when the reader has ended and readErr says why.
	over    chan struct{}
	readErr error
	reason  protocol.Reason
	text    string
	welcome *protocol.Welcome
	waited  protocol.Wait // the last WAIT that was logged
	queue   queuePlace
	// sending is set once the receiver has said which chunks it has.
	sending bool
	// queued says how many bytes the connection has accepted and not sent.
	queued func() uint64
	// keepAlive starts heartbeats. The function that it returns stops them.
	keepAlive func(protocol.KeepAlive) context.CancelFunc
}

// outcome is the result of a session that came to SEALED.
type outcome struct {
	sealed   *protocol.Sealed
	reason   protocol.Reason
	text     string
	declined bool
	known    bool
	why      string
}

// session runs one session with t over nc, and closes nc. When stop is done, it asks the receiver to seal what it has.
func (j *job) session(ctx, stop context.Context, nc net.Conn, t *target) (out *outcome, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{
		job: j, target: t, conn: protocol.NewConn(nc, protocol.Sender), stop: stop,
		msgs: make(chan protocol.Message, 8), over: make(chan struct{}), queued: backlog(nc),
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
	// When ctx ends, reads and writes in progress must end too.
	release := context.AfterFunc(ctx, func() { _ = s.conn.Shutdown(cancelled(ctx), linger) })
	defer func() {
		release()
		_ = s.conn.Shutdown(err, linger)
	}()
	out, err = s.run(ctx)
	s.notePages()
	return out, t.ofDepot(s.cause(ctx, err))
}

// notePages notes how many pages the target has now.
func (s *session) notePages() {
	if !s.sending {
		return
	}
	pages, gained := s.meter.stored()
	s.target.pages = pages
	if gained > 0 {
		s.target.gained(time.Now())
	}
}

// cancelled returns the error to send to the receiver when ctx ends a session, nil if the connection failed.
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

// cause returns the best error for a failed session: that of the receiver rather than the broken pipe that followed.
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
	// The end of ctx closes the connection, so its cause comes first.
	cause := context.Cause(ctx)
	_, stalled := errors.AsType[*stallError](cause)
	_, queued := errors.AsType[*queueError](cause)
	if stalled || queued || errors.Is(err, context.Canceled) && cause != nil {
		return cause
	}
	return err
}

// run takes a session from HELLO to SEALED.
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
		if s.gaveUp {
			s.reason, s.text = protocol.ReasonOther, "no target took all of it: "+s.target.err.Error()
		}
	case errors.As(err, &local):
		// The receiver can still seal what it has.
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
	out := &outcome{sealed: sealed, reason: s.reason, text: s.text}
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

// converse takes a session from LOGSTORED to the last chunk. It returns SEALED if the receiver sent it without FINISH.
// It calls setHeartbeat with the interval that the receiver wants.
func (s *session) converse(ctx context.Context, setHeartbeat func(protocol.KeepAlive)) (*protocol.Sealed, error) {
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
		setHeartbeat(protocol.KeepAlive{Heartbeat: every, Timeout: max(protocol.DefaultTimeout, 9*every/2)})
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

// sendChunks sends the chunks that the receiver wants and does not have.
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
	s.meter.plan(planned, had, plan.Params.PageSize)
	s.sending = true
	s.meter.setState("sending")
	s.log("%d pages (%s) to send, the receiver has %d of them", planned, bytesize.Format(planned*uint64(plan.Params.PageSize)), had)
	s.flow.setWindow(s.welcome.WindowBytes)
	r := &run{
		pipeline: s.pipeline(plan), session: s, tiers: tiers, have: ok.Have,
		adaptive: newAdaptiveEncoding(usable(s.target.ladder(s.ladder), s.welcome.Encodings), s.opts.Workers),
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

// usable returns the encodings of a ladder that the receiver accepts, or EncodingNone alone.
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

// finish asks the receiver to seal what it has, even after the deadline.
func (s *session) finish(ctx context.Context) (*protocol.Sealed, error) {
	lost := s.meter.Progress().Lost
	// The dump file may be incomplete although all that was planned was sent.
	if lacks := s.src.account.Reason(); s.reason == protocol.ReasonComplete && (lost > 0 || lacks != "") {
		s.reason, s.text = protocol.ReasonUnreadable, strings.Trim(lacks+"; "+s.meter.lostText(), "; ")
	}
	s.meter.setState("sealing")
	// The receiver may already have sent SEALED.
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
		// After the deadline, answers to earlier messages may still come.
		if sealed, ok := m.(*protocol.Sealed); ok {
			return sealed, nil
		}
	}
}

// sealing is the limit for SEALED: that of an ACK while chunks are unacknowledged, then a longer one, because the
// receiver reads the whole file back.
func (s *session) sealing() time.Duration {
	if s.flow.inFlight() > 0 {
		return s.soon()
	}
	return s.later()
}

// write sends a message. The stall timer runs until the connection has taken it.
func (s *session) write(m protocol.Message) error {
	defer s.stall.start(s.soon)()
	return s.conn.Write(m)
}

// maxFinishText keeps the text of FINISH within what the protocol allows.
const maxFinishText = 1024
