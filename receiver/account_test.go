package receiver

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
)

// longLog returns a dump whose log has so many bytes more.
func longLog(tb testing.TB, seed uint64, bytes int) *testDump {
	tb.Helper()
	d := newDump(tb, seed)
	d.log = strings.Repeat("x", bytes-1) + "\n" + d.log
	return d
}

// turnedAway sends everything up to LOGEND, and returns the refusal, nil when the log is stored.
func (p *peer) turnedAway() *protocol.Error {
	p.t.Helper()
	log := p.wire.NewLogWriter()
	err := errors.Join(p.wire.Write(&p.dump.hello), p.wire.WriteNotes(p.dump.notes), p.wire.WriteRAM(p.dump.ram))
	if err == nil {
		_, err = io.WriteString(log, p.dump.log)
	}
	if err == nil {
		_ = log.Close("") // the refusal may be there already
	}
	for {
		msg, err := p.wire.Read()
		var told *protocol.Error
		switch {
		case errors.As(err, &told):
			return told
		case err != nil:
			p.t.Fatalf("neither stored nor refused: %v", err)
		}
		if _, ok := msg.(*protocol.LogStored); ok {
			return nil
		}
	}
}

// logs sends the logs of so many dumps of a host, and returns how many were stored. Once one is refused, all have to be.
func (r *rig) logs(host string, n, bytes int) (stored int) {
	r.t.Helper()
	for i := range n {
		p := r.peer(host, longLog(r.t, uint64(len(host)+i), bytes))
		told := p.turnedAway()
		switch {
		case told == nil && stored < i:
			r.t.Errorf("log %d is stored after one that was not", i)
		case told == nil:
			stored++
		case told.Code != protocol.CodeNoSpace || told.RetryAfter == 0 || told.Hint == "":
			r.t.Errorf("refused with %v, want no-space, with a hint and when to come back", told)
		}
		_ = p.raw.NetConn().Close()
		p.gone(r)
	}
	return stored
}

// TestLogsOfOneHostLeaveTheReserve has a host send the logs of ten dumps while the disk is at its reserve. It gets a part of it, and
// another host's log gets in.
func TestLogsOfOneHostLeaveTheReserve(t *testing.T) {
	var disk *smallDisk
	const reserve, size = 16 << 20, 1 << 20 // a quarter is for one host
	r := newRig(t, func(c *Config) {
		disk = &smallDisk{Store: c.Store, free: reserve - 1}
		c.Store = disk
		withLimits(admission.Limits{Reserve: reserve})(c)
	})
	if got := r.logs("web1", 10, size); got != 3 { // the fourth is a little more than the part
		t.Errorf("%d logs of %d bytes are stored beside a reserve of %d, want 3", got, size, reserve)
	}
	if got := r.logs("the-other-host", 1, size); got != 1 {
		t.Error("another host's log is refused")
	}
	if log := r.log.String(); !strings.Contains(log, "of which the logs of one host may take 4.000 MiB; host web1 has taken 3.") {
		t.Error("the log does not say how much the host has taken")
	}
	disk.setFree(reserve + 100<<20)
	if got := r.logs("web1", 10, size); got != 10 {
		t.Errorf("%d logs are stored once there is room, want 10", got)
	}
}

// TestLogAgainTakesNothing has a sender come back many times with the same log while the disk is at its reserve.
func TestLogAgainTakesNothing(t *testing.T) {
	var disk *smallDisk
	r := newRig(t, func(c *Config) {
		disk = &smallDisk{Store: c.Store, free: 16<<20 - 1}
		c.Store = disk
		withLimits(admission.Limits{Reserve: 16 << 20})(c)
	})
	for range 10 {
		if got := r.logs("web1", 1, 1<<20); got != 1 {
			t.Fatal("the log is refused")
		}
	}
}

// TestLogsCountForTheHost has a host fill its limit with logs. Then its pages have no room, until dumps are removed.
func TestLogsCountForTheHost(t *testing.T) {
	r := newRig(t, withLimits(admission.Limits{HostBytes: 4 << 20}))
	if got := r.logs("web1", 5, 1<<20); got != 5 {
		t.Fatalf("%d logs are stored, want 5", got)
	}
	p := r.peer("web1", newDump(t, 1))
	p.hello()
	expect[*protocol.Welcome](p)
	p.sendPlan()
	p.waits("host web1 may store 4.000 MiB and has stored 5.0")
	for i := range uint64(4) {
		if err := r.store.Remove(t.Context(), storage.Ref{Host: "web1", ID: newDump(t, 5+i).hello.DumpID}, storage.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	expect[*protocol.PlanOK](p)
}

// TestHostDumpsAreLimited refuses a dump too many, and neither those that come back nor those of another host.
func TestHostDumpsAreLimited(t *testing.T) {
	r := newRig(t, withLimits(admission.Limits{HostDumps: 2}))
	for seed := range uint64(2) {
		if told := r.peer("web1", newDump(t, seed)).turnedAway(); told != nil {
			t.Fatal(told)
		}
	}
	told := r.peer("web1", newDump(t, 2)).turnedAway()
	if told == nil || told.Code != protocol.CodeNoSpace || told.RetryAfter == 0 || !strings.Contains(told.Text, "host web1 has 2 dumps and may have 2 (max_host_dumps)") ||
		!strings.Contains(told.Hint, "corehaul prune --max-per-host") {
		t.Errorf("a dump too many: %+v", told)
	}
	if told := r.peer("web1", newDump(t, 1)).turnedAway(); told != nil {
		t.Errorf("one that comes back: %v", told)
	}
	if told := r.peer("web2", newDump(t, 3)).turnedAway(); told != nil {
		t.Errorf("another host's: %v", told)
	}
	if err := r.store.Remove(t.Context(), storage.Ref{Host: "web1", ID: newDump(t, 0).hello.DumpID}, storage.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r.eventually("room for another dump", func() bool { return r.peer("web1", newDump(t, 2)).turnedAway() == nil })
	for _, e := range []string{"web1", "web2"} {
		if list, err := r.store.List(t.Context(), storage.Filter{Host: storage.Patterns{e}, State: []dumpdir.State{dumpdir.StateArriving}}); err != nil || len(list) > 2 {
			t.Errorf("%s has %d dumps, %v", e, len(list), err)
		}
	}
}

// listCounter counts how often a store looks at all dumps.
type listCounter struct {
	storage.Store
	lists atomic.Int64
}

func (s *listCounter) List(ctx context.Context, f storage.Filter) ([]storage.Entry, error) {
	s.lists.Add(1)
	return s.Store.List(ctx, f)
}

func (s *listCounter) Usage(ctx context.Context, host string) (storage.Usage, error) {
	s.lists.Add(1)
	return s.Store.Usage(ctx, host)
}

// TestHelloListsNothing has many senders of one host say hello, under every limit and a rule that counts panics. Only the first one
// has the store look at them: for the account and for the rule.
func TestHelloListsNothing(t *testing.T) {
	var store *listCounter
	r := newRig(t, func(c *Config) {
		store = &listCounter{Store: c.Store}
		c.Store = store
		withLimits(admission.Limits{Reserve: 1, HostBytes: 1 << 40, HostDumps: 1000})(c)
		withRules(admission.Rule{Name: "rule 1", SameCrash: 1000, Then: admission.ActionLog})(c)
	})
	hello := func(seed uint64) {
		p := r.peer("web1", newDump(t, seed))
		p.hello()
		p.plan()
		p.chunk(0)
		p.acked(0)
		p.gone(r)
	}
	hello(0)
	before := store.lists.Load()
	for seed := range uint64(10) {
		hello(seed + 1)
	}
	if got := store.lists.Load() - before; got != 0 {
		t.Errorf("10 senders had the store look at all dumps %d times", got)
	}
}
