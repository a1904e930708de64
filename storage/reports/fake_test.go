package reports_test

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/outputtest"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/reports"
	"github.com/corehaul/corehaul/triage"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// fakeStore has dumps in memory. Their directories are named HOST/ID.
type fakeStore struct {
	storage.Store
	storage.Hints

	mu      sync.Mutex
	entries map[storage.Ref]*storage.Entry
	lists   int
	failing func(storage.Ref) error // of SaveSide
}

func newFakeStore() *fakeStore { return &fakeStore{entries: map[storage.Ref]*storage.Entry{}} }

// add adds a dump, or changes the state of one.
func (s *fakeStore) add(host, id string, state dumpdir.State) storage.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref := storage.Ref{Host: host, ID: id}
	e := &storage.Entry{Ref: ref, Path: ref.String(), Manifest: dumpdir.Manifest{Host: host, ID: id, State: state, StartTime: time.Now()}}
	e.Manifest.Bytes.Log = 10
	if state != dumpdir.StateArriving {
		now := time.Now()
		e.Manifest.EndTime = &now
	}
	if old := s.entries[ref]; old != nil {
		e.Report = old.Report
	}
	s.entries[ref] = e
	return ref
}

func (s *fakeStore) remove(host, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, storage.Ref{Host: host, ID: id})
}

// come is add with the hint of the store.
func (s *fakeStore) come(host, id string, state dumpdir.State) {
	ref := s.add(host, id, state)
	if state == dumpdir.StateArriving {
		s.Give(storage.LogStored, ref)
	} else {
		s.Give(storage.Sealed, ref)
	}
}

func (s *fakeStore) Subscribe(to storage.Event) (<-chan storage.Ref, func()) {
	return s.Hints.Subscribe(to)
}

func (s *fakeStore) List(context.Context, storage.Filter) ([]storage.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	out := []storage.Entry{}
	for _, e := range s.entries {
		out = append(out, *e)
	}
	return out, nil
}

func (s *fakeStore) Find(_ context.Context, name string) (storage.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, e := range s.entries {
		if ref.String() == name {
			return *e, nil
		}
	}
	return storage.Entry{}, storage.ErrNotFound
}

func (s *fakeStore) SaveSide(_ context.Context, ref storage.Ref, f dumpdir.SideFile, as *dumpdir.Manifest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := f.(*dumpdir.StoredReport)
	e := s.entries[ref]
	switch {
	case s.failing != nil && s.failing(ref) != nil:
		return s.failing(ref)
	case e == nil:
		return storage.ErrNotFound
	case as != nil && !r.Describes(&e.Manifest):
		return storage.ErrChanged
	}
	e.Report, e.Title = &r.ReportHead, r.Title
	return nil
}

// fakeMaker takes a time for each dump and notes what it did, as "log HOST/ID" and "dump HOST/ID". The title is the same text.
type fakeMaker struct {
	took func(what, dir string) time.Duration
	err  func(what, dir string) error

	mu   sync.Mutex
	made []string
	at   []time.Time // when each began
	most int         // dumps at the same time
	now  int
}

func (m *fakeMaker) make(ctx context.Context, what, dir string) (*triage.Report, error) {
	m.mu.Lock()
	text := what + " " + dir
	m.made, m.at = append(m.made, text), append(m.at, time.Now())
	if what == "dump" {
		m.now++
		m.most = max(m.most, m.now)
	}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if what == "dump" {
			m.now--
		}
	}()
	if m.took != nil {
		select {
		case <-time.After(m.took(what, dir)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if m.err != nil {
		if err := m.err(what, dir); err != nil {
			return nil, err
		}
	}
	return &triage.Report{Version: triage.Version, Sources: []string{what}, Kind: "bug", Title: text}, nil
}

func (m *fakeMaker) Dump(ctx context.Context, dir string) (*triage.Report, error) {
	return m.make(ctx, "dump", dir)
}

func (m *fakeMaker) Log(ctx context.Context, dir string) (*triage.Report, error) {
	return m.make(ctx, "log", dir)
}

// said returns what was made so far.
func (m *fakeMaker) said() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.made, ", ")
}

// attempts is how often it was asked.
func (m *fakeMaker) attempts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.made)
}

// begun returns when something was first made.
func (m *fakeMaker) begun(t *testing.T, text string) time.Time {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.made, text)
	if i < 0 {
		t.Fatalf("%s was not made", text)
	}
	return m.at[i]
}

// start runs a Runner and returns what ends it.
func start(t *testing.T, r *reports.Runner) (log *outputtest.Buffer, stop func()) {
	t.Helper()
	log = new(outputtest.Buffer)
	r.Log = slog.New(slog.NewTextHandler(log, nil))
	if r.Program == "" {
		r.Program = "corehaul v1"
	}
	r.Jobs = max(r.Jobs, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	return log, func() {
		cancel()
		wg.Wait()
	}
}

func dir(host string, n int) string { return path.Join(host, fmt.Sprintf("%04d", n)) }
