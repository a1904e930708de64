package receiver

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/storage"
)

// TestSenderGoesBeforeTheSeal: SEALED of a long dump comes without a SHA-256, and the seal follows.
func TestSenderGoesBeforeTheSeal(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SealAfter = 1 })
	p := r.peer("web1", newDump(t, 1))
	sealed := p.whole()
	_ = p.raw.Close()
	if sealed.State != protocol.StateComplete || sealed.SHA256 != "" || sealed.Missing != 0 || sealed.Pages == 0 || sealed.Path == "" {
		t.Errorf("SEALED is %+v", sealed)
	}
	r.eventually("the session has ended", func() bool { return len(r.server.Status(t.Context()).Sessions) == 0 })
	if m := r.stored("web1"); m.State != dumpdir.StateComplete || m.SHA256 == "" {
		t.Errorf("stored as %s, SHA-256 %q", m.State, m.SHA256)
	}
	if st := r.server.Status(t.Context()); st.Totals.Complete != 1 || st.Totals.BrokenOff != 0 || len(st.Totals.Refused) != 0 || len(st.Gone) != 0 {
		t.Errorf("status: %+v", st)
	}
}

// TestSenderWaitsForTheSeal: a short dump, a partial one and one with another plan are sealed first.
func TestSenderWaitsForTheSeal(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SealAfter = 1 << 40 })
	if sealed := r.peer("web1", newDump(t, 1)).whole(); sealed.SHA256 == "" {
		t.Errorf("a short dump: %+v", sealed)
	}
	r = newRig(t, func(c *Config) { c.SealAfter = 1 })
	p := r.peer("web1", newDump(t, 1))
	p.hello()
	p.plan()
	p.chunk(0)
	if sealed := p.finish(protocol.ReasonDeadline); sealed.State != protocol.StatePartial || sealed.SHA256 == "" {
		t.Errorf("a partial dump: %+v", sealed)
	}
}

// TestUnreadableIsNotComplete: a sender that says that its file lacks something waits for the seal, although its plan is here.
func TestUnreadableIsNotComplete(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SealAfter = 1 })
	p := r.peer("web1", newDump(t, 1))
	p.hello()
	p.plan()
	for seq := range uint64(len(p.dump.cut)) {
		p.chunk(seq)
	}
	if sealed := p.finish(protocol.ReasonUnreadable); sealed.State != protocol.StatePartial || sealed.SHA256 == "" {
		t.Errorf("sealed as %+v", sealed)
	}
}

// TestFinishedDumpOfAnEarlierProcess: a server that was killed between SEALED and the seal seals the dump when it starts, without
// waiting for the sender, which does not come back.
func TestFinishedDumpOfAnEarlierProcess(t *testing.T) {
	r := newRig(t, nil)
	p := r.peer("web1", newDump(t, 1))
	p.hello()
	p.plan()
	for seq := range uint64(len(p.dump.cut)) {
		p.chunk(seq)
	}
	p.acked(0, 1, 2, 3, 4)
	_ = p.raw.NetConn().Close()
	r.stop()
	ref := storage.Ref{Host: "web1", ID: p.dump.hello.DumpID}
	finishAsBefore(t, r.data, ref)
	r.start(nil) // its grace is an hour
	r.eventually("the dump is sealed", func() bool { return strings.Contains(r.log.String(), `msg="sealed a complete dump"`) })
	if m := r.stored("web1"); m.State != dumpdir.StateComplete || m.SHA256 == "" {
		t.Errorf("stored as %s, SHA-256 %q", m.State, m.SHA256)
	}
}

// finishAsBefore leaves a dump of a store as a server does that is killed right after SEALED.
func finishAsBefore(t *testing.T, data string, ref storage.Ref) {
	t.Helper()
	store, err := openStore(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	w, err := store.Resume(t.Context(), ref, storage.ResumeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := w.Finish(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// heldLog is a log handler that holds up whoever logs a message, until the test lets it go.
type heldLog struct {
	slog.Handler
	message       string
	reached, goOn chan struct{}
}

// Handle implements slog.Handler.
func (h *heldLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == h.message {
		h.reached <- struct{}{}
		<-h.goOn
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *heldLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &heldLog{h.Handler.WithAttrs(attrs), h.message, h.reached, h.goOn}
}

// TestNextDumpComesDuringTheSeal: with one slot, a second dump is received while the first one is sealed. The second one keeps the slot
// during its seal, so that no more than two are sealed.
func TestNextDumpComesDuringTheSeal(t *testing.T) {
	h := &heldLog{message: "the dump is complete and durable; sealing it", reached: make(chan struct{}), goOn: make(chan struct{})}
	r := newRig(t, func(c *Config) {
		c.SealAfter, c.MaxActive = 1, 1
		h.Handler = c.Log.Handler()
		c.Log = slog.New(h)
	})
	for seed := range uint64(2) {
		p := r.peer(fmt.Sprintf("web%d", seed+1), newDump(t, seed+1))
		if sealed := p.whole(); sealed.State != protocol.StateComplete {
			t.Errorf("SEALED is %+v", sealed)
		}
		_ = p.raw.Close()
		<-h.reached
	}
	third := r.peer("web3", newDump(t, 3))
	third.hello()
	r.eventually("the third one waits", func() bool { return len(r.server.Status(t.Context()).Queue) == 1 })
	for range 2 {
		h.goOn <- struct{}{}
	}
	third.plan()
	_ = third.raw.NetConn().Close()
	r.eventually("all sessions have ended", func() bool { return len(r.server.Status(t.Context()).Sessions) == 0 })
	if st := r.server.Status(t.Context()); st.Totals.Complete != 2 || st.Limits.ActiveUsed != 0 || len(r.server.sealers) != 0 {
		t.Errorf("status: %+v", st)
	}
}
