package receiver

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
)

// atLevel returns newDump's machine with the plan of a lower level: 2002 pages in nine chunks.
func atLevel(tb testing.TB, seed uint64, level uint8) *testDump {
	tb.Helper()
	d := newDump(tb, seed)
	d.hello.Level = level
	d.planned(tb, []protocol.Run{
		{Extent: mem.Extent{Start: 1, Count: 150}},
		{Extent: mem.Extent{Start: 256, Count: 202}, Tier: 1},
		{Extent: mem.Extent{Start: 600, Count: 400}},
		{Extent: mem.Extent{Start: 1000, Count: 1250}, Tier: 1},
	})
	return d
}

// all are the chunks of a plan.
func (d *testDump) all() []uint64 { return upTo(len(d.cut)) }

// upTo are the first n chunks.
func upTo(n int) []uint64 {
	seqs := make([]uint64, n)
	for i := range seqs {
		seqs[i] = uint64(i)
	}
	return seqs
}

// begun sends everything up to the plan and checks what the receiver has of it, and whether it tells of another.
func (r *rig) begun(d *testDump, have int, other bool) *peer {
	r.t.Helper()
	p := r.peer("web1", d)
	p.hello()
	expect[*protocol.Welcome](p)
	p.sendPlan()
	ok := expect[*protocol.PlanOK](p)
	if ok.Have.Len() != uint64(have) {
		r.t.Errorf("the receiver has %d chunks at level %d, want %d", ok.Have.Len(), d.hello.Level, have)
	}
	if told := strings.Contains(ok.Note, "another plan"); told != other {
		r.t.Errorf("the note is %q, another plan: %t", ok.Note, other)
	}
	return p
}

// cutOff sends chunks and, once they are durable, says nothing more.
func (p *peer) cutOff(r *rig, chunks ...uint64) {
	p.t.Helper()
	for _, seq := range chunks {
		p.chunk(seq)
	}
	p.acked(chunks...)
	p.gone(r)
}

// gone breaks the connection and waits until the receiver has noticed.
func (p *peer) gone(r *rig) {
	p.t.Helper()
	_ = p.raw.NetConn().Close()
	r.eventually("the session is over", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		return len(r.server.claims) == 0
	})
}

// nobodyComes lets the time be over for which dumps wait for their senders.
func (r *rig) nobodyComes() {
	r.t.Helper()
	e := r.server.expiry
	e.mu.Lock()
	waiting := slices.Collect(maps.Keys(e.due))
	e.mu.Unlock()
	if len(waiting) == 0 {
		r.t.Error("no dump waits for its sender")
	}
	for _, ref := range waiting {
		e.set(ref, absent(0, dumpdir.Progress{}))
	}
}

// challenged reports whether a dump has a challenger.
func (r *rig) challenged() bool {
	r.t.Helper()
	refs, err := r.store.Challengers().List(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return len(refs) > 0
}

// wantDump checks that the one dump has exactly these chunks of d, is whole with its log, and whether it has a challenger.
func (r *rig) wantDump(d *testDump, state dumpdir.State, challenged bool, chunks ...uint64) {
	r.t.Helper()
	m := r.stored("web1")
	if m.State != state || m.Plan.Level != d.hello.Level {
		r.t.Errorf("the dump is %s at level %d, want %s at %d", m.State, m.Plan.Level, state, d.hello.Level)
	}
	if m.Bytes.Log != int64(len(d.log)) || m.PanicLine != fmt.Sprintf("Kernel panic - not syncing: test %d", d.seed) {
		r.t.Errorf("the log has %d bytes and the panic line %q", m.Bytes.Log, m.PanicLine)
	}
	r.samePages("web1", d, chunks...)
	if got := r.challenged(); got != challenged {
		r.t.Errorf("there is a challenger: %t, want %t", got, challenged)
	}
}

// TestOtherPlanBehind has a sender come with another plan, and give up before it gets as far as the first.
func TestOtherPlanBehind(t *testing.T) {
	r := newRig(t, nil)
	first, other := newDump(t, 1), atLevel(t, 1, 1)
	r.begun(first, 0, false).cutOff(r, 0, 1, 2)
	r.begun(other, 0, true).cutOff(r, 0)
	r.wantDump(first, dumpdir.StateArriving, true, 0, 1, 2)
	r.wantHostBytes()
	r.begun(other, 1, true).cutOff(r, 1)
	r.wantDump(first, dumpdir.StateArriving, true, 0, 1, 2)
	p := r.begun(first, 3, false)
	for _, seq := range []uint64{3, 4} {
		p.chunk(seq)
	}
	if sealed := p.finish(protocol.ReasonComplete); sealed.State != protocol.StateComplete || sealed.Pages != 1050 {
		t.Errorf("sealed as %+v", sealed)
	}
	r.wantDump(first, dumpdir.StateComplete, false, first.all()...)
}

// wantHostBytes checks that what the host has stored is what lies on the disk, challenger and all.
func (r *rig) wantHostBytes() {
	r.t.Helper()
	want := uint64(0)
	for _, dir := range []string{"dumps", "next"} {
		before := want
		err := filepath.WalkDir(filepath.Join(r.data, dir, "web1"), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			st, err := e.Info()
			if err == nil {
				want += uint64(st.Size())
			}
			return err
		})
		if err != nil || want == before {
			r.t.Fatalf("%s: %v", dir, err)
		}
	}
	account := admission.NewRoom(r.store, admission.Limits{HostBytes: want}, slog.New(slog.DiscardHandler)).Account("web1")
	for _, more := range []uint64{0, 1} {
		if hold, err := account.Hold(r.t.Context(), 0, more); err != nil || (hold != "") != (more > 0) {
			r.t.Errorf("%d bytes more than the %d that are stored: %q, %v", more, want, hold, err)
		}
	}
}

// TestOtherPlanFinishesBehind has the second plan end in good order, with less than the first.
func TestOtherPlanFinishesBehind(t *testing.T) {
	r := newRig(t, nil)
	first, other := newDump(t, 1), atLevel(t, 1, 1)
	r.begun(first, 0, false).cutOff(r, 0, 1, 2)
	p := r.begun(other, 0, true)
	p.chunk(0)
	sealed := p.finish(protocol.ReasonDeadline)
	if sealed.State != protocol.StatePartial || sealed.Pages != 256+256+38 || sealed.Missing != 500 {
		t.Errorf("sealed as %+v, want the first plan's pages", sealed)
	}
	r.wantDump(first, dumpdir.StatePartial, false, 0, 1, 2)
	if m := r.stored("web1"); m.Reason != reasonOther {
		t.Errorf("pages are missing because %q", m.Reason)
	}
}

func TestOtherPlanGetsAhead(t *testing.T) {
	for _, tc := range []struct {
		name   string
		chunks int
		end    protocol.Reason
		state  dumpdir.State
	}{
		{"complete", 9, protocol.ReasonComplete, dumpdir.StateComplete},
		{"partial with more pages", 6, protocol.ReasonDeadline, dumpdir.StatePartial},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, nil)
			first, other := newDump(t, 1), atLevel(t, 1, 1)
			r.begun(first, 0, false).cutOff(r, 0, 1, 2)
			p := r.begun(other, 0, true)
			for _, seq := range upTo(tc.chunks) {
				p.chunk(seq)
			}
			sealed := p.finish(tc.end)
			e, err := r.store.Find(t.Context(), first.hello.DumpID)
			if err != nil || string(sealed.State) != string(tc.state) || sealed.Path != e.Path || e.Manifest.SHA256 != sealed.SHA256 {
				t.Errorf("sealed as %+v, found as %+v: %v", sealed, e, err)
			}
			r.wantDump(other, tc.state, false, upTo(tc.chunks)...)
		})
	}
}

// TestOtherPlanTakesThePlace has the second plan get ahead without an end: the next session finds it in the dump's place.
func TestOtherPlanTakesThePlace(t *testing.T) {
	r := newRig(t, nil)
	first, other := newDump(t, 1), atLevel(t, 1, 1)
	r.begun(first, 0, false).cutOff(r, 0)
	r.begun(other, 0, true).cutOff(r, upTo(4)...)
	r.begun(first, 0, true).cutOff(r, 0)
	r.wantDump(other, dumpdir.StateArriving, true, upTo(4)...)
	p := r.begun(other, 4, false)
	for _, seq := range other.all()[4:] {
		p.chunk(seq)
	}
	if sealed := p.finish(protocol.ReasonComplete); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	r.wantDump(other, dumpdir.StateComplete, false, other.all()...)
}

// TestNobodyComesBack leaves both plans unfinished.
func TestNobodyComesBack(t *testing.T) {
	for _, tc := range []struct {
		name          string
		first, second int
	}{{"the first is ahead", 3, 1}, {"the second is ahead", 2, 4}, {"neither is", 2, 2}, {"the second has nothing", 1, 0}} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %t", tc.name, restart), func(t *testing.T) {
				first, other := newDump(t, 1), atLevel(t, 1, 1)
				r := newRig(t, nil)
				r.begun(first, 0, false).cutOff(r, upTo(tc.first)...)
				r.begun(other, 0, true).cutOff(r, upTo(tc.second)...)
				if restart {
					r.stop()
					r.start(func(c *Config) { c.ResumeGrace = 50 * time.Millisecond })
				} else {
					r.nobodyComes()
				}
				r.eventually("one is sealed", func() bool { return strings.Contains(r.log.String(), "msg=\"sealed a dump") })
				r.eventually("nothing waits any more", r.server.idle)
				if tc.second > tc.first {
					r.wantDump(other, dumpdir.StatePartial, false, upTo(tc.second)...)
				} else {
					r.wantDump(first, dumpdir.StatePartial, false, upTo(tc.first)...)
				}
			})
		}
	}
}

// TestThirdPlan has a third plan come while two are there: the two that lead stay.
func TestThirdPlan(t *testing.T) {
	r := newRig(t, nil)
	first, other, third := newDump(t, 1), atLevel(t, 1, 1), atLevel(t, 1, 17)
	r.begun(first, 0, false).cutOff(r, 0)
	r.begun(other, 0, true).cutOff(r, upTo(4)...)
	r.begun(third, 0, true).cutOff(r, 0)
	r.wantDump(other, dumpdir.StateArriving, true, upTo(4)...)
	r.begun(first, 0, true).cutOff(r, 0)
	r.begun(third, 0, true).cutOff(r, 0, 1)
	r.wantDump(other, dumpdir.StateArriving, true, upTo(4)...)
	if sealed := r.peer("web1", third).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	r.wantDump(third, dumpdir.StateComplete, false, third.all()...)
}

// TestMoreOfACompleteDump has an operator send a crash again that was stored at a higher level.
func TestMoreOfACompleteDump(t *testing.T) {
	r := newRig(t, nil)
	first, more := newDump(t, 1), atLevel(t, 1, 1)
	r.peer("web1", first).whole()
	r.begun(more, 0, true).cutOff(r, upTo(5)...)
	r.wantDump(first, dumpdir.StateComplete, true, first.all()...)
	again := r.peer("web1", first)
	again.hello()
	if sealed := expect[*protocol.Sealed](again); sealed.State != protocol.StateComplete || sealed.Pages != 1050 {
		t.Errorf("the first plan is sealed as %+v", sealed)
	}
	r.wantDump(first, dumpdir.StateComplete, true, first.all()...)
	// What is behind a complete dump goes with its end.
	p := r.begun(more, 5, true)
	if sealed := p.finish(protocol.ReasonDeadline); sealed.State != protocol.StateComplete || sealed.Pages != 1050 {
		t.Errorf("sealed as %+v, want the complete dump of the first plan", sealed)
	}
	r.wantDump(first, dumpdir.StateComplete, false, first.all()...)
	r.begun(more, 0, true).cutOff(r, 0)
	if sealed := r.peer("web1", more).whole(); sealed.State != protocol.StateComplete || sealed.Pages != 2002 {
		t.Errorf("sealed as %+v", sealed)
	}
	r.wantDump(more, dumpdir.StateComplete, false, more.all()...)
	again = r.peer("web1", first)
	again.hello()
	if sealed := expect[*protocol.Sealed](again); sealed.Pages != 2002 {
		t.Errorf("what has all of the first plan and more is sealed as %+v", sealed)
	}
}

// TestLeftBesideACompleteDump leaves the challenger of a complete dump behind: it is given up in the end.
func TestLeftBesideACompleteDump(t *testing.T) {
	r := newRig(t, nil)
	first, more := newDump(t, 1), atLevel(t, 1, 1)
	r.peer("web1", first).whole()
	r.begun(more, 0, true).cutOff(r, upTo(5)...)
	again := r.peer("web1", first)
	again.hello()
	expect[*protocol.Sealed](again)
	again.gone(r)
	r.nobodyComes()
	r.eventually("nothing waits any more", func() bool { return r.server.idle() && !r.challenged() })
	r.wantDump(first, dumpdir.StateComplete, false, first.all()...)
}

func TestAsksForMore(t *testing.T) {
	for _, tc := range []struct {
		level, stored uint8
		want          bool
	}{
		{31, 31, false},
		{1, 31, true},
		{31, 1, false},
		{0, 1, false}, // zero pages are no pages of their own
		{30, 31, false},
		{17, 31, true},
		{8, 16, false}, // neither has all of the other's
		{4, 6, false},  // 4 includes 2
		{2, 4, true},
		{25, 29, true},
	} {
		if got := asksForMore(tc.level, tc.stored); got != tc.want {
			t.Errorf("level %d after %d: %t, want %t", tc.level, tc.stored, got, tc.want)
		}
	}
}

// TestChallengerOfADamagedDump has the dump damaged while a challenger waits, which is behind but whole.
func TestChallengerOfADamagedDump(t *testing.T) {
	r := newRig(t, nil)
	first, other := newDump(t, 1), atLevel(t, 1, 1)
	r.begun(first, 0, false).cutOff(r, 0, 1, 2)
	r.begun(other, 0, true).cutOff(r, 0)
	e, err := r.store.Find(t.Context(), first.hello.DumpID)
	if err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(e.Path, dumpdir.JournalName)
	b, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	b[200] ^= 1
	if err := os.WriteFile(journal, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r.begun(other, 1, false).cutOff(r, 1)
	r.wantDump(other, dumpdir.StateArriving, false, 0, 1)
}

// TestTakeoverBetweenPlans has senders come back before the receiver noticed that the line was cut: one with the same
// plan, then one with the other.
func TestTakeoverBetweenPlans(t *testing.T) {
	r := newRig(t, nil)
	first, other := newDump(t, 1), atLevel(t, 1, 1)
	r.begun(first, 0, false).cutOff(r, 0, 1)
	old := r.begun(other, 0, true)
	old.chunk(0)
	old.acked(0)
	second := r.begun(other, 1, true)
	old.refused(protocol.CodeSuperseded)
	second.chunk(1)
	second.acked(1)
	p := r.begun(first, 2, false)
	second.refused(protocol.CodeSuperseded)
	r.wantDump(first, dumpdir.StateArriving, true, 0, 1)
	for _, seq := range []uint64{2, 3, 4} {
		p.chunk(seq)
	}
	if sealed := p.finish(protocol.ReasonComplete); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	r.wantDump(first, dumpdir.StateComplete, false, first.all()...)
}

// noRoom is a store whose disk has no room for another dump of the same crash.
type noRoom struct{ storage.Store }

func (s noRoom) Challengers() storage.Challengers { return noRoomBeside{s.Store.Challengers()} }

type noRoomBeside struct{ storage.Challengers }

func (noRoomBeside) Create(context.Context, dumpdir.Meta) (*dumpdir.Writer, error) {
	return nil, syscall.ENOSPC
}

// TestNoRoomForRuns sees that only a plan that is new needs room for itself. The sender sends its runs although WELCOME named the
// plan.
func TestNoRoomForRuns(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Store = noRoom{c.Store} })
	first, other := newDump(t, 1), atLevel(t, 1, 1)
	r.begun(first, 0, false).cutOff(r, 0)
	p := r.peer("web1", other)
	p.hello()
	expect[*protocol.Welcome](p)
	p.sendPlan()
	p.refused(protocol.CodeNoSpace)
	p.gone(r)
	e, err := r.store.Find(t.Context(), first.hello.DumpID)
	if err != nil {
		t.Fatal(err)
	}
	p = r.open(first, 1, first)
	runs := filepath.Join(e.Path, "otherplan.tmp")
	if err := os.MkdirAll(filepath.Join(runs, "in the way"), 0o700); err != nil { // no file can be made for the runs
		t.Fatal(err)
	}
	p.sendPlan()
	p.begins(1)
	if err := os.RemoveAll(runs); err != nil {
		t.Error(err)
	}
	for _, seq := range first.all()[1:] {
		p.chunk(seq)
	}
	if sealed := p.finish(protocol.ReasonComplete); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	r.wantDump(first, dumpdir.StateComplete, false, first.all()...)
}

// TestAnyOrderOfPlans kills senders of three plans of one crash, and the receiver, wherever it comes. At any
// time one dump is listed that is page by page what it is said to be, and never a worse one than before.
func TestAnyOrderOfPlans(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 17))
			r := newRig(t, nil)
			plans := []*testDump{newDump(t, 1), atLevel(t, 1, 1), atLevel(t, 1, 17)}
			plans[2].planned(t, plans[2].runs[1:])
			var best standing
			for range 14 {
				if rnd.IntN(6) == 0 {
					r.stop()
					r.start(nil)
				}
				r.anySession(plans[rnd.IntN(len(plans))], rnd)
				best = r.noWorse(plans, best)
			}
			d := plans[rnd.IntN(len(plans))]
			p := r.peer("web1", d)
			p.hello()
			p.gone(r)
			r.noWorse(plans, best)
		})
	}
}

// anySession plays a session up to a random point.
func (r *rig) anySession(d *testDump, rnd *rand.Rand) {
	r.t.Helper()
	p := r.peer("web1", d)
	steps := rnd.IntN(12)
	p.hello()
	msg, err := p.wire.Read()
	for ; err == nil; msg, err = p.wire.Read() {
		if _, wait := msg.(*protocol.Wait); !wait {
			break
		}
	}
	if _, done := msg.(*protocol.Sealed); done || err != nil {
		p.gone(r)
		return
	}
	if steps > 0 {
		p.sendPlan()
	}
	if steps < 2 {
		p.gone(r)
		return
	}
	have := expect[*protocol.PlanOK](p).Have
	sent := 0
	for _, seq := range d.all() {
		if sent < steps-2 && !have.Contains(seq) {
			p.chunk(seq)
			sent++
		}
	}
	switch rnd.IntN(4) {
	case 0:
		p.send(&protocol.Finish{Reason: protocol.ReasonDeadline})
	case 1:
		p.finish(protocol.ReasonDeadline)
	}
	p.gone(r)
}

// noWorse checks the dump that is listed.
func (r *rig) noWorse(plans []*testDump, before standing) standing {
	r.t.Helper()
	e, err := r.store.Find(r.t.Context(), plans[0].hello.DumpID)
	if err != nil {
		r.t.Fatal(err)
	}
	dump, err := r.store.Open(r.t.Context(), e.Ref)
	if err != nil {
		r.t.Fatal(err)
	}
	now := standingOf(dump)
	if err := dump.Close(); err != nil {
		r.t.Fatal(err)
	}
	if before.ahead(now) {
		r.t.Errorf("the dump was %+v and is %+v", before, now)
	}
	m := r.stored("web1")
	for _, d := range plans {
		if m.Plan == nil || m.Plan.Level != d.hello.Level {
			continue
		}
		var have []uint64
		w, err := r.store.Resume(r.t.Context(), e.Ref, storage.ResumeOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
		for _, c := range w.Have() {
			for seq := c.First; seq <= c.Last; seq++ {
				have = append(have, seq)
			}
		}
		if err := w.Close(); err != nil {
			r.t.Fatal(err)
		}
		r.samePages("web1", d, have...)
	}
	return now
}
