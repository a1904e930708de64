package intake_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

const (
	dumpPath = "/dump"
	pageSize = 4096
	// window holds two chunks of the test machine.
	window = 2 << 20
)

// policy is a Policy over a file system in memory; a test replaces what it is about.
type policy struct {
	intake.Unlimited
	*intake.Session
	fs *dumpdirtest.FS

	stages  []intake.Stage
	hold    func() error
	admit   func(m *protocol.Welcome) error
	other   func() error
	room    func() error
	space   func(of intake.Content) error
	commits func() error
	seal    func() error
	// received, when set, is told of chunks that were put, and none of them is committed before the end.
	received chan int64
}

var errPolicy = errors.New("the policy says no")

func call(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (p *policy) Open(context.Context) (err error) {
	p.W, err = dumpdir.Resume(p.fs, dumpPath, dumpdir.Options{Reopen: true})
	if errors.Is(err, dumpdir.ErrNotExist) {
		p.W, err = dumpdir.Create(p.fs, dumpPath, p.Meta("host-1"), dumpdir.Options{})
	}
	return err
}

func (p *policy) Hold(int64) error { return call(p.hold) }

func (p *policy) Admit(_ context.Context, m *protocol.Welcome) (*protocol.Finish, error) {
	m.Host = "host-1"
	if p.admit != nil {
		return nil, p.admit(m)
	}
	return nil, nil
}

func (p *policy) OtherPlan(context.Context, *dumpdir.PlanInfo) error { return call(p.other) }

func (p *policy) MakeRoom(context.Context, *protocol.PlanEnd, *protocol.PlanOK) (*protocol.Finish, error) {
	return nil, call(p.room)
}

func (p *policy) Enter(stage intake.Stage) { p.stages = append(p.stages, stage) }

func (p *policy) RoomFor(_ context.Context, of intake.Content, _ int64) error {
	if p.space == nil {
		return nil
	}
	return p.space(of)
}

func (p *policy) Received(bytes int64) {
	if p.received != nil {
		p.received <- bytes
	}
}

func (p *policy) Committed(context.Context) error { return call(p.commits) }

func (p *policy) Seal(ctx context.Context, f *protocol.Finish) (intake.Outcome, error) {
	if err := call(p.seal); err != nil {
		return intake.Outcome{}, err
	}
	res, err := intake.Seal(ctx, p.W, f, intake.Reason(f))
	return intake.Outcome{Result: res, Dir: p.W.Dir()}, err
}

// title takes the whole log for the panic line.
type title struct{ log []byte }

func (t *title) Write(p []byte) (int, error) { t.log = append(t.log, p...); return len(p), nil }
func (t *title) Line() string                { return string(t.log) }

// far is a Session in a goroutine of its own, and the sender's end of its connection.
type far struct {
	t      *testing.T
	policy *policy
	wire   *protocol.Conn
	heard  chan protocol.Message // closed at the end, for which err says why
	err    error
	cancel context.CancelCauseFunc
	ended  chan error
}

func start(t *testing.T, p *policy) *far {
	t.Helper()
	if p.fs == nil {
		p.fs = dumpdirtest.NewFS()
	}
	near, conn := net.Pipe()
	commitBytes, commitInterval := int64(1), time.Millisecond
	if p.received != nil {
		commitBytes, commitInterval = window, time.Hour
	}
	p.Session = intake.NewSession(conn, intake.Config{
		Tool: "test 1", Peer: "pipe", Transport: "pipe", Title: new(title), Codec: kdumpfile.Snappy,
		Window: window, Workers: 2, CommitBytes: commitBytes, CommitInterval: commitInterval, WaitEvery: time.Second,
		HelloTimeout: time.Hour, StallTimeout: time.Minute,
	}, p)
	ctx, cancel := context.WithCancelCause(t.Context())
	f := &far{
		t: t, policy: p, wire: protocol.NewConn(near, protocol.Sender), cancel: cancel,
		heard: make(chan protocol.Message, 100), ended: make(chan error, 1),
	}
	go f.listen()
	go func() {
		err := p.Run(ctx)
		last := err
		if err != nil {
			last = intake.WireError(err)
		}
		_ = p.Shutdown(last) // the sender may be gone
		f.ended <- err
	}()
	return f
}

func (f *far) listen() {
	defer close(f.heard)
	for {
		m, err := f.wire.Read()
		if err != nil {
			f.err = err
			return
		}
		f.heard <- m
	}
}

// end closes the sender's end and returns what ended the session.
func (f *far) end() error {
	_ = f.wire.Close()
	err := <-f.ended
	f.cancel(nil)
	for range f.heard {
	}
	return err
}

// send sends a message. A receiver that has given up meanwhile says why in what is read next.
func (f *far) send(m protocol.Message) {
	f.t.Helper()
	if e, ok := errors.AsType[*protocol.Error](f.wire.Write(m)); ok {
		f.t.Errorf("our own end refuses %s: %v", m.Type(), e)
	}
}

// until reads up to a message of type M; an error is the one that the sender hears, or SEALED that comes too early.
func until[M protocol.Message](f *far) (want M, err error) {
	for m := range f.heard {
		if m, ok := m.(M); ok {
			return m, nil
		}
		if m, ok := m.(*protocol.Sealed); ok {
			return want, &earlySeal{m}
		}
	}
	return want, f.err
}

// earlySeal is SEALED in place of another message.
type earlySeal struct{ *protocol.Sealed }

func (*earlySeal) Error() string { return "sealed already" }

const panicLine = "Kernel panic - not syncing: test"

func newHello() *protocol.Hello {
	return &protocol.Hello{
		DumpID: protocol.DumpID([]byte("OSRELEASE=6.1.0-test\n"), nil, nil), Tool: "test 1", Machine: "x86_64",
		PageSize: pageSize, MaxPFN: 4096, RAMBytes: 16 << 20, NrCPUs: 1, Level: 31,
		Encodings: protocol.Encodings{protocol.EncodingSnappyPage},
	}
}

// hello sends everything up to the log.
func (f *far) hello() {
	f.t.Helper()
	f.send(newHello())
	_ = f.wire.WriteRAM([]mem.Range{{Start: 0, End: 16 << 20}}) // as in send
	log := f.wire.NewLogWriter()
	_, _ = io.WriteString(log, panicLine)
	_ = log.Close("")
}

// plan sends a plan of so many pages, from page frame 256 on.
func (f *far) plan(pages uint64) {
	f.t.Helper()
	enc := protocol.NewRunEncoder(newHello().Params(), func(b []byte) error { return f.wire.Write(&protocol.Plan{Data: b}) })
	_ = enc.Add(protocol.Run{Extent: mem.Extent{Start: 256, Count: pages}}) // as in send
	sum, err := enc.Close()
	if err != nil {
		f.t.Fatal(err)
	}
	f.send(&protocol.PlanEnd{
		Hash: sum.Hash, Runs: sum.Runs, Kept: sum.Kept, Chunks: sum.Chunks(), Codec: protocol.EncodingSnappyPage,
		Tiers: []protocol.Tier{{Name: "kernel", Essential: true, Pages: sum.Kept, Chunks: sum.Chunks()}},
	})
}

// chunkOf returns chunk seq of that plan: raw pages, all alike.
func chunkOf(seq uint64) *protocol.Chunk {
	raw := make([]byte, 256*pageSize)
	for i := range raw {
		raw[i] = byte(seq + 1)
	}
	return &protocol.Chunk{
		Seq: seq, Encoding: protocol.EncodingNone, RawSum: protocol.RawSum(raw), Payload: raw,
		Extents: []chunk.Extent{{Extent: mem.Extent{Start: mem.PFN(256 * (seq + 1)), Count: 256}, Kind: chunk.Data}},
	}
}

// chunks sends the chunks that ok does not have, one at a time.
func (f *far) chunks(ok *protocol.PlanOK) error {
	for seq := range uint64(2) {
		if ok.Have.Contains(seq) {
			continue
		}
		f.send(chunkOf(seq))
		if _, err := until[*protocol.Ack](f); err != nil {
			return err
		}
	}
	return nil
}

// planned sends everything up to PLANEND and returns the answer.
func (f *far) planned(pages uint64) (*protocol.PlanOK, error) {
	f.hello()
	if _, err := until[*protocol.Welcome](f); err != nil {
		return nil, err
	}
	f.plan(pages)
	return until[*protocol.PlanOK](f)
}

// whole sends a dump of two chunks.
func (f *far) whole() (*protocol.Sealed, error) {
	ok, err := f.planned(512)
	if err == nil {
		err = f.chunks(ok)
	}
	if err != nil {
		return nil, err
	}
	f.send(&protocol.Finish{Reason: protocol.ReasonComplete})
	return until[*protocol.Sealed](f)
}

// stored returns the dump as it is on disk.
func (f *far) stored() *dumpdir.Dump {
	f.t.Helper()
	d, err := dumpdir.Open(f.policy.fs, dumpPath)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		f.t.Fatal(err)
	}
	return d
}

func TestSession(t *testing.T) {
	f := start(t, new(policy))
	sealed, err := f.whole()
	if err != nil || sealed.State != protocol.StateComplete || sealed.Pages != 512 || sealed.Path != dumpPath {
		t.Errorf("sealed as %+v, %v", sealed, err)
	}
	if err := f.end(); err != nil {
		t.Error(err)
	}
	if m := f.stored().Manifest(); m.State != dumpdir.StateComplete || m.PanicLine != panicLine || m.Host != "host-1" {
		t.Errorf("stored: %s, %q, %q", m.State, m.PanicLine, m.Host)
	}
	if want := []intake.Stage{intake.Planning, intake.Receiving, intake.Sealing}; !slices.Equal(f.policy.stages, want) {
		t.Errorf("stages %v, want %v", f.policy.stages, want)
	}
	again := start(t, &policy{fs: f.policy.fs})
	again.hello()
	if sealed, err := until[*protocol.Sealed](again); err != nil || sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %+v again, %v", sealed, err)
	}
	if err := again.end(); err != nil {
		t.Error(err)
	}
}

// TestSessionGoesOn breaks off after a chunk, and comes back for the other one.
func TestSessionGoesOn(t *testing.T) {
	f := start(t, new(policy))
	if _, err := f.planned(512); err != nil {
		t.Fatal(err)
	}
	f.send(chunkOf(1))
	if _, err := until[*protocol.Ack](f); err != nil {
		t.Fatal(err)
	}
	if err := f.end(); !errors.Is(err, io.EOF) {
		t.Errorf("ended with %v", err)
	}
	again := start(t, &policy{fs: f.policy.fs})
	ok, err := again.planned(512)
	if err != nil || ok.Have.Len() != 1 || !ok.Have.Contains(1) {
		t.Fatalf("has %v, %v, want chunk 1", ok, err)
	}
	if err := again.chunks(ok); err != nil {
		t.Fatal(err)
	}
	again.send(&protocol.Finish{Reason: protocol.ReasonComplete})
	if sealed, err := until[*protocol.Sealed](again); err != nil || sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %+v, %v", sealed, err)
	}
	if err := again.end(); err != nil {
		t.Error(err)
	}
}

// TestSessionRefused has the policy or the disk fail at each place. The sender hears the code; the dump is open for a next session,
// with what was put before.
func TestSessionRefused(t *testing.T) {
	busy := func() error { return protocol.Errorf(protocol.CodeBusy, "not now") }
	full := func() error { return syscall.ENOSPC }
	fullOf := func(what intake.Content) func(intake.Content) error {
		return func(of intake.Content) error {
			if of == what {
				return syscall.ENOSPC
			}
			return nil
		}
	}
	for name, tc := range map[string]struct {
		policy  policy
		fault   dumpdirtest.Op // fails once the plan is there
		want    protocol.Code
		present uint64 // pages
	}{
		"hold":           {policy{hold: busy}, "", protocol.CodeBusy, 0},
		"admit":          {policy{admit: func(*protocol.Welcome) error { return errPolicy }}, "", protocol.CodeStorage, 0},
		"room for plan":  {policy{room: full}, "", protocol.CodeNoSpace, 0},
		"space for log":  {policy{space: fullOf(intake.Log)}, "", protocol.CodeNoSpace, 0},
		"space for runs": {policy{space: fullOf(intake.Plan)}, "", protocol.CodeNoSpace, 0},
		"space for page": {policy{space: fullOf(intake.Pages)}, "", protocol.CodeNoSpace, 0},
		"committed":      {policy{commits: busy}, "", protocol.CodeBusy, 256},
		"seal":           {policy{seal: func() error { return errPolicy }}, "", protocol.CodeStorage, 512},
		"write":          {policy{}, dumpdirtest.OpWrite, protocol.CodeStorage, 0},
		"fsync":          {policy{}, dumpdirtest.OpSync, protocol.CodeStorage, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, &tc.policy)
			ok, err := f.planned(512)
			if err == nil {
				f.policy.fs.SetFault(func(_ int, op dumpdirtest.Op, _ string) error {
					if op == tc.fault {
						return syscall.EIO
					}
					return nil
				})
				err = f.chunks(ok)
			}
			if err == nil {
				f.send(&protocol.Finish{Reason: protocol.ReasonComplete})
				_, err = until[*protocol.Sealed](f)
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("the sender hears %v, want %s", err, tc.want)
			}
			if err := f.end(); intake.WireError(err).Code != tc.want {
				t.Errorf("ended with %v, want %s", err, tc.want)
			}
			f.policy.fs.SetFault(nil)
			d := f.stored()
			got := d.Progress().Present
			more := tc.policy.commits != nil && got > tc.present // the next chunk was quicker than the refusal
			if d.State() != dumpdir.StateArriving || got != tc.present && !more {
				t.Errorf("the dump is %s with %d pages, want %d", d.State(), got, tc.present)
			}
		})
	}
}

// TestSessionDeclined has a policy want no pages, before WELCOME and after it.
func TestSessionDeclined(t *testing.T) {
	silent := &intake.DeclinedError{Reason: "the same panic came before"}
	loud := &intake.DeclinedError{Reason: "no", Answer: protocol.Errorf(protocol.CodeDeclined, "no")}
	admit := func(err error) policy { return policy{admit: func(*protocol.Welcome) error { return err }} }
	room := func(err error) policy { return policy{room: func() error { return err }} }
	for name, tc := range map[string]struct {
		policy policy
		want   error
	}{
		"admit, SEALED": {admit(silent), nil},
		"admit, ERROR":  {admit(loud), protocol.CodeDeclined},
		"room, SEALED":  {room(silent), nil},
		"room, ERROR":   {room(loud), protocol.CodeDeclined},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, &tc.policy)
			_, err := f.planned(512)
			if early, ok := errors.AsType[*earlySeal](err); tc.want == nil && (!ok || early.Reason != silent.Reason || early.State != protocol.StateLogOnly) {
				t.Errorf("the sender hears %v", err)
			}
			if tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("the sender hears %v, want %v", err, tc.want)
			}
			if err := f.end(); !errors.Is(err, tc.want) {
				t.Errorf("ended with %v, want %v", err, tc.want)
			}
			if d := f.stored(); d.State() != dumpdir.StateLogOnly {
				t.Errorf("the dump is %s", d.State())
			}
		})
	}
}

// TestSessionOutOfOrder has the sender say what it must not say at each place.
func TestSessionOutOfOrder(t *testing.T) {
	logOnly := func(m *protocol.Welcome) error { m.Collect = protocol.CollectLog; return nil }
	for name, tc := range map[string]struct {
		policy policy
		say    func(f *far)
		want   protocol.Code
	}{
		"an omitted plan that was not named": {policy{}, func(f *far) {
			f.send(&protocol.PlanEnd{
				Hash: protocol.PlanHash{1}, Omitted: true, Runs: 1, Kept: 1, Chunks: 1, Codec: protocol.EncodingSnappyPage,
				Tiers: []protocol.Tier{{Name: "kernel", Pages: 1, Chunks: 1}},
			})
		}, protocol.CodePlanMismatch},
		"a plan of no pages": {policy{}, func(f *far) { f.plan(0) }, protocol.CodePlanMismatch},
		"nothing":            {policy{}, func(f *far) { _ = f.wire.Close() }, ""},
		"nothing, log only":  {policy{admit: logOnly}, func(f *far) { _ = f.wire.Close() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, &tc.policy)
			f.hello()
			if _, err := until[*protocol.Welcome](f); err != nil {
				t.Fatal(err)
			}
			tc.say(f)
			if _, err := until[*protocol.PlanOK](f); err == nil || tc.want != "" && !errors.Is(err, tc.want) {
				t.Errorf("the sender hears %v, want %s", err, tc.want)
			}
			if err := f.end(); err == nil || tc.want != "" && !errors.Is(err, tc.want) {
				t.Errorf("ended with %v, want %s", err, tc.want)
			}
			if d := f.stored(); d.State() != dumpdir.StateArriving {
				t.Errorf("the dump is %s", d.State())
			}
		})
	}
}

// TestSessionOtherPlan comes with another plan than the one that is stored.
func TestSessionOtherPlan(t *testing.T) {
	f := start(t, new(policy))
	if _, err := f.planned(512); err != nil {
		t.Fatal(err)
	}
	_ = f.end() // it breaks off
	other := start(t, &policy{fs: f.policy.fs, other: func() error { return protocol.Errorf(protocol.CodePlanMismatch, "another one") }})
	if _, err := other.planned(256); !errors.Is(err, protocol.CodePlanMismatch) {
		t.Errorf("the sender hears %v", err)
	}
	if err := other.end(); !errors.Is(err, protocol.CodePlanMismatch) {
		t.Errorf("ended with %v", err)
	}
	if p := other.stored().Progress(); p.Planned != 512 {
		t.Errorf("a plan of %d pages is stored", p.Planned)
	}
}

// TestSessionToldToStop ends a session from without. The sender hears the cause. What was put and not committed is made durable,
// but not if a newer session has the dump.
func TestSessionToldToStop(t *testing.T) {
	for name, tc := range map[string]struct {
		cause   *protocol.Error
		present uint64
	}{
		"shutdown":  {protocol.Errorf(protocol.CodeShuttingDown, "the end"), 256},
		"take-over": {protocol.Errorf(protocol.CodeSuperseded, "another one"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, &policy{received: make(chan int64)})
			if _, err := f.planned(512); err != nil {
				t.Fatal(err)
			}
			f.send(chunkOf(0))
			<-f.policy.received
			f.cancel(tc.cause)
			if _, err := until[*protocol.Sealed](f); !errors.Is(err, tc.cause.Code) {
				t.Errorf("the sender hears %v", err)
			}
			if err := f.end(); !errors.Is(err, tc.cause.Code) {
				t.Errorf("ended with %v", err)
			}
			if p := f.stored().Progress(); p.Present != tc.present {
				t.Errorf("%d pages are durable, want %d", p.Present, tc.present)
			}
		})
	}
}

// TestSessionTime has a sender bring nothing, and hear WAIT while a seal takes its time.
func TestSessionTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, new(policy))
		stop := f.alive()
		if _, err := f.planned(512); err != nil {
			t.Fatal(err)
		}
		if _, err := until[*protocol.Sealed](f); !errors.Is(err, protocol.CodeTimeout) {
			t.Errorf("the idle sender hears %v", err)
		}
		stop()
		if err := f.end(); !errors.Is(err, protocol.CodeTimeout) {
			t.Errorf("ended with %v", err)
		}

		slow := start(t, &policy{fs: f.policy.fs, seal: func() error { time.Sleep(10 * time.Second); return nil }})
		stop = slow.alive()
		ok, err := slow.planned(512)
		if err == nil {
			err = slow.chunks(ok)
		}
		if err != nil {
			t.Fatal(err)
		}
		slow.send(&protocol.Finish{Reason: protocol.ReasonComplete})
		if wait, err := until[*protocol.Wait](slow); err != nil || wait.Reason != "the dump is sealed" {
			t.Errorf("heard %+v, %v", wait, err)
		}
		if _, err := until[*protocol.Sealed](slow); err != nil {
			t.Error(err)
		}
		stop()
		if err := slow.end(); err != nil {
			t.Error(err)
		}
	})
}

// alive has the sender send heartbeats until the returned function is called.
func (f *far) alive() (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.wire.KeepAlive(ctx, protocol.KeepAlive{})
	}()
	return func() { cancel(); <-done }
}
