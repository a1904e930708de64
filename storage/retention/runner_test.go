package retention

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	"github.com/corehaul/corehaul/storage/storagetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// store has so many partial dumps of one crash, and their machines.
func store(t *testing.T, n int) (*local.Store, []*dumpdirtest.Machine) {
	t.Helper()
	s, err := local.Open(t.Context(), t.TempDir(), storage.OpenOptions{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	var machines []*dumpdirtest.Machine
	for i := range n {
		m := dumpdirtest.NewMachine(uint64(i), 40, 16)
		machines = append(machines, m)
		storagetest.Receive(t, s, m, true)
		sign(t, s, storage.Ref{Host: m.Meta.Host, ID: m.Meta.ID})
	}
	return s, machines
}

// sign gives a dump a report with the signature that all have.
func sign(t *testing.T, s storage.Store, ref storage.Ref) {
	t.Helper()
	e, err := s.Find(t.Context(), ref.String())
	if err == nil {
		head := dumpdir.ReportHead{Signatures: dumpdir.Signatures{Log: &dumpdir.Signature{ID: "0123456789abcdef", Coarse: "0123456789abcdef", Frames: []string{}}}}
		err = s.SaveSide(t.Context(), ref, dumpdir.NewStoredReport(&e.Manifest, head, []byte("{}"), time.Now()), &e.Manifest)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func ids(t *testing.T, s storage.Store) (out []string) {
	t.Helper()
	entries, err := s.List(t.Context(), storage.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		out = append(out, strings.TrimLeft(entries[i].ID, "0"))
	}
	return out
}

// TestApply has a sender come back, and somebody pin a dump, between decision and removal.
func TestApply(t *testing.T) {
	s, machines := store(t, 5) // ids 1 to 5, all sealed in the same second
	plan, err := Look(t.Context(), s, Policy{MaxPerCrash: 1}, Clock{Now: time.Now()})
	if err != nil || len(plan.Remove) != 4 {
		t.Fatalf("%v, %v", names(plan), err)
	}
	back := plan.Remove[1].Entry.Ref
	w, err := s.Resume(t.Context(), back, storage.ResumeOptions{Reopen: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		if m.Meta.ID == back.ID {
			if err := w.PutChunk(&m.Chunks[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := w.Seal(t.Context(), "cut again"); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveSide(t.Context(), plan.Remove[2].Entry.Ref, dumpdir.NewPin(time.Now(), ""), nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = Apply(t.Context(), s, plan, func(_ Removal, err error) {
		switch {
		case err == nil:
			got = append(got, "removed")
		case errors.Is(err, storage.ErrChanged) && Kept(err):
			got = append(got, "changed")
		case errors.Is(err, storage.ErrPinned) && Kept(err):
			got = append(got, "pinned")
		default:
			t.Error(err)
		}
	})
	if diff := cmp.Diff([]string{"removed", "changed", "pinned", "removed"}, got); diff != "" || err != nil {
		t.Errorf("(-want +got):\n%s%v", diff, err)
	}
	if left := ids(t, s); len(left) != 3 {
		t.Errorf("left: %v", left)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// syncBuffer is a log that tells of each line.
type syncBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	lines chan struct{}
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.lines <- struct{}{}:
	default:
	}
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestRun removes what is too much when it starts, says why, and stops when told.
func TestRun(t *testing.T) {
	s, _ := store(t, 3)
	log := &syncBuffer{lines: make(chan struct{}, 10)}
	r := &Runner{Store: s, Policy: Policy{MaxPerHost: 2}, Log: slog.New(slog.NewTextHandler(log, nil))}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	<-log.lines
	stop()
	wg.Wait()
	if got := log.String(); !strings.Contains(got, "retention removed a dump") || !strings.Contains(got, "host=node1 dump=0000") ||
		!strings.Contains(got, `why="its host has 3 dumps; the limit is 2"`) {
		t.Errorf("log: %s", got)
	}
	if left := ids(t, s); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

// TestRunLeavesTheExampleForAGoalOutOfReach is serve on a disk that others filled: repetitions go, the last dump of the crash
// stays, and what lacks is said.
func TestRunLeavesTheExampleForAGoalOutOfReach(t *testing.T) {
	s, _ := store(t, 3)
	log := &syncBuffer{lines: make(chan struct{}, 10)}
	r := &Runner{Store: s, Policy: Policy{KeepFree: 1 << 62}, Log: slog.New(slog.NewTextHandler(log, nil))}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	for !strings.Contains(log.String(), "more than the removal of all removable dumps frees") {
		<-log.lines
	}
	stop()
	wg.Wait()
	if left := ids(t, s); len(left) != 1 {
		t.Errorf("left: %v\n%s", left, log)
	}
}

// TestSetPolicy has a policy without limits, which removes nothing, replaced by one that has some, which counts at once.
func TestSetPolicy(t *testing.T) {
	s, _ := store(t, 3)
	log := &syncBuffer{lines: make(chan struct{}, 10)}
	r := &Runner{Store: s, Log: slog.New(slog.NewTextHandler(log, nil))}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	r.SetPolicy(Policy{MaxPerHost: 2})
	<-log.lines
	stop()
	wg.Wait()
	if left := ids(t, s); len(left) != 2 {
		t.Errorf("left: %v\n%s", left, log)
	}
}

// slowStore tells of each list and of each removal, and waits for an answer before a removal.
type slowStore struct {
	storage.Store

	listed, asked, answer chan struct{}
}

func (s *slowStore) List(ctx context.Context, f storage.Filter) ([]storage.Entry, error) {
	s.listed <- struct{}{}
	return s.Store.List(ctx, f)
}

func (s *slowStore) Remove(ctx context.Context, ref storage.Ref, opts storage.RemoveOptions) error {
	s.asked <- struct{}{}
	<-s.answer
	return s.Store.Remove(ctx, ref, opts)
}

// TestSetPolicyEndsARun has a limit raised while dumps are removed: the run ends before the next one.
func TestSetPolicyEndsARun(t *testing.T) {
	s, _ := store(t, 4)
	slow := &slowStore{Store: s, listed: make(chan struct{}, 10), asked: make(chan struct{}, 10), answer: make(chan struct{})}
	r := &Runner{Store: slow, Policy: Policy{MaxPerHost: 1}, Log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	<-slow.listed
	<-slow.asked
	r.SetPolicy(Policy{MaxPerHost: 3})
	close(slow.answer)
	select {
	case <-slow.listed: // for the new policy
	case <-slow.asked:
		t.Error("another dump is removed")
	}
	stop()
	wg.Wait()
	if left := ids(t, s); len(left) != 3 {
		t.Errorf("left: %v", left)
	}
}
