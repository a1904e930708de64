package scrub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/internal/outputtest"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	"github.com/corehaul/corehaul/storage/scrub"
	"github.com/corehaul/corehaul/storage/storagetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// recorder is a store that tells of each record.
type recorder struct {
	storage.Store
	saved  chan error
	opened chan struct{} // when not nil: a dump is about to be read
}

func (r *recorder) Open(ctx context.Context, ref storage.Ref) (*dumpdir.Dump, error) {
	if r.opened != nil {
		close(r.opened)
	}
	return r.Store.Open(ctx, ref)
}

func (r *recorder) SaveSide(ctx context.Context, ref storage.Ref, f dumpdir.SideFile, as *dumpdir.Manifest) error {
	err := r.Store.SaveSide(ctx, ref, f, as)
	r.saved <- err
	return err
}

// store has n sealed dumps, every second of them partial.
func store(t *testing.T, n int) (*recorder, []*dumpdirtest.Machine) {
	t.Helper()
	s, err := local.Open(t.Context(), t.TempDir(), storage.OpenOptions{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	var machines []*dumpdirtest.Machine
	for i := range n {
		m := dumpdirtest.NewMachine(uint64(i), 60, 16)
		machines = append(machines, m)
		storagetest.Receive(t, s, m, i%2 == 1)
	}
	return &recorder{Store: s, saved: make(chan error, 100)}, machines
}

func entry(t *testing.T, s storage.Store, n int) storage.Entry {
	t.Helper()
	e, err := s.Find(t.Context(), fmt.Sprintf("%032x", n+1))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// flip flips a bit of a file of a dump.
func flip(t *testing.T, e storage.Entry, name string, off int64) {
	t.Helper()
	path := filepath.Join(e.Path, name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if off < 0 {
		off += int64(len(b))
	}
	b[off] ^= 4
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a scrubber and returns what ends it and gives its log.
func run(t *testing.T, s storage.Store, rate uint64) (stop func() string) {
	t.Helper()
	log := new(outputtest.Buffer)
	sc := &scrub.Scrubber{Store: s, Log: slog.New(slog.NewTextHandler(log, nil)), Rate: rate, Every: time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { sc.Run(ctx) })
	return func() string {
		cancel()
		wg.Wait()
		return log.String()
	}
}

// TestScrub finds one flipped bit among three dumps, names it, records it, and looks at each dump once.
func TestScrub(t *testing.T) {
	s, _ := store(t, 3)
	bad := entry(t, s, 1)
	flip(t, bad, dumpdir.VMCoreName, -10)
	stop := run(t, s, 1<<30)
	for range 3 {
		if err := <-s.saved; err != nil {
			t.Error(err)
		}
	}
	log := stop()
	for _, want := range []string{`level=ERROR msg="scrub: a stored dump is damaged" host=node1 dump=` + bad.ID + " file=vmcore offset=", " pfn=", " chunk=", "CRC-32C"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s:\n%s", want, log)
		}
	}
	if strings.Count(log, "a stored dump is damaged") != 1 {
		t.Errorf("log: %s", log)
	}
	for i, want := range []dumpdir.State{dumpdir.StateComplete, dumpdir.StateDamaged, dumpdir.StateComplete} {
		e := entry(t, s, i)
		if e.State() != want || e.Verification == nil || (e.Verification.Damaged > 0) != (want == dumpdir.StateDamaged) {
			t.Errorf("dump %d: %s, %+v", i, e.State(), e.Verification)
		}
	}
	stop = run(t, s, 1<<30) // nothing is due
	flip(t, bad, dumpdir.VMCoreName, -10)
	if log := stop(); log != "" || len(s.saved) != 0 {
		t.Errorf("verified again: %s", log)
	}
	if rep, err := scrub.Check(t.Context(), s, &bad, dumpdir.VerifyOptions{}); err != nil || !rep.OK() {
		t.Errorf("repaired: %+v, %v", rep, err)
	}
	if e := entry(t, s, 1); e.State() != dumpdir.StatePartial {
		t.Errorf("repaired, and listed as %s", e.State())
	}
}

// TestJournalAndManifest has damage where a dump says what it is.
func TestJournalAndManifest(t *testing.T) {
	for _, tc := range []struct {
		file string
		off  int64
	}{{dumpdir.JournalName, 3}, {dumpdir.JournalName, 40}, {dumpdir.JournalName, 300}, {dumpdir.ManifestName, 0}, {dumpdir.LogName, 5}, {dumpdir.SumsName, 1}} {
		s, _ := store(t, 1)
		e := entry(t, s, 0)
		flip(t, e, tc.file, tc.off)
		rep, err := scrub.Check(t.Context(), s, &e, dumpdir.VerifyOptions{})
		if err != nil || rep.OK() || rep.Findings[0].File != tc.file {
			t.Errorf("%s at %d: %+v, %v", tc.file, tc.off, rep, err)
		}
		if e := entry(t, s, 0); e.State() != dumpdir.StateDamaged || e.Verification == nil {
			t.Errorf("%s at %d: listed as %s, %+v", tc.file, tc.off, e.State(), e.Verification)
		}
	}
}

// TestStopsInTheMiddle ends a scrub that would take minutes; the dump stays unverified.
func TestStopsInTheMiddle(t *testing.T) {
	s, _ := store(t, 1)
	s.opened = make(chan struct{})
	stop := run(t, s, 512)
	<-s.opened
	if log := stop(); log != "" || len(s.saved) != 0 {
		t.Errorf("log %s", log)
	}
	if e := entry(t, s, 0); e.Verification != nil {
		t.Errorf("recorded %+v", e.Verification)
	}
}

// TestLimit asks for every byte before it is read, and ends with the limit's error.
func TestLimit(t *testing.T) {
	s, _ := store(t, 1)
	e := entry(t, s, 0)
	read := 0
	rep, err := scrub.Check(t.Context(), s, &e, dumpdir.VerifyOptions{Limit: func(_ context.Context, n int) error { read += n; return nil }})
	if err != nil || !rep.OK() || int64(read) < e.Manifest.Bytes.VMCore+e.Manifest.Bytes.Log {
		t.Errorf("%d bytes asked for: %+v, %v", read, rep, err)
	}
	full := errors.New("no more")
	at := 0
	_, err = scrub.Check(t.Context(), s, &e, dumpdir.VerifyOptions{Limit: func(_ context.Context, n int) error {
		if at += n; at > read/2 {
			return full
		}
		return nil
	}})
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

// TestSenderComesBack in the middle of a verification: it is not held up, and what the scrub saw is forgotten.
// TestTornReport: a report with damage in its middle, which no list sees, is removed, so that it is made again. A good one stays.
func TestTornReport(t *testing.T) {
	s, _ := store(t, 2)
	for i := range 2 {
		e := entry(t, s, i)
		f := dumpdir.NewStoredReport(&e.Manifest, dumpdir.ReportHead{Program: "test", Kind: "bug", Title: "t"}, []byte(`{"words": ["many", "words"]}`), time.Now())
		if err := s.Store.SaveSide(t.Context(), e.Ref, f, &e.Manifest); err != nil {
			t.Fatal(err)
		}
	}
	bad := entry(t, s, 0)
	flip(t, bad, dumpdir.ReportName, -20) // a quote
	if e := entry(t, s, 0); e.Title != "t" {
		t.Fatalf("the list sees it: %v", e.ReportError)
	}
	stop := run(t, s, 1<<30)
	for end := time.Now().Add(5 * time.Minute); entry(t, s, 0).Report != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the report stays")
		}
	}
	for range 2 {
		if err := <-s.saved; err != nil {
			t.Error(err)
		}
	}
	log := stop()
	if n := strings.Count(log, "level=WARN"); n != 1 || !strings.Contains(log, "a crash report is damaged") || !strings.Contains(log, "dump="+bad.ID) {
		t.Errorf("log: %s", log)
	}
	if e := entry(t, s, 0); e.State() == dumpdir.StateDamaged {
		t.Error("the dump counts as damaged")
	}
	if e := entry(t, s, 1); e.Title != "t" {
		t.Error("the good report is gone")
	}
}

func TestSenderComesBack(t *testing.T) {
	s, machines := store(t, 2)
	e, m := entry(t, s, 1), machines[1]
	var w *dumpdir.Writer
	_, err := scrub.Check(t.Context(), s, &e, dumpdir.VerifyOptions{Limit: func(ctx context.Context, _ int) (err error) {
		if w == nil {
			w, err = s.Resume(ctx, e.Ref, storage.ResumeOptions{Reopen: true})
		}
		return err
	}})
	if !errors.Is(err, storage.ErrChanged) || !scrub.Moved(err) {
		t.Errorf("got %v", err)
	}
	for i := range m.Chunks[1:] {
		if err := w.PutChunk(&m.Chunks[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if res, err := w.Seal(t.Context(), ""); err != nil || res.State != dumpdir.StateComplete {
		t.Errorf("%+v, %v", res, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if e := entry(t, s, 1); e.State() != dumpdir.StateComplete || e.Verification != nil {
		t.Errorf("listed as %s, %+v", e.State(), e.Verification)
	}
	_, err = scrub.Check(t.Context(), s, &e, dumpdir.VerifyOptions{Limit: func(ctx context.Context, _ int) error {
		if err := s.Remove(ctx, e.Ref, storage.RemoveOptions{}); !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		return nil
	}})
	if !scrub.Moved(err) {
		t.Errorf("removed meanwhile: %v", err)
	}
}

func TestDue(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	at := func(id string, sealed, verified time.Duration) storage.Entry {
		end := now.Add(-sealed)
		e := storage.Entry{Ref: storage.Ref{Host: "h", ID: id}, Manifest: dumpdir.Manifest{State: dumpdir.StateComplete, EndTime: &end}}
		if verified != 0 {
			e.Verification = &dumpdir.Verification{Time: now.Add(-verified)}
		}
		return e
	}
	arriving := at("arriving", 99*time.Hour, 0)
	arriving.Manifest.State = dumpdir.StateArriving
	const every = 10 * time.Hour
	for _, tc := range []struct {
		name    string
		entries []storage.Entry
		want    string
		wait    time.Duration
	}{
		{"none", nil, "", 10 * time.Minute},
		{"arriving", []storage.Entry{arriving}, "", 10 * time.Minute},
		{"never verified", []storage.Entry{at("a", time.Hour, 0), at("b", 2*time.Hour, 0)}, "ba", 0},
		{"verified longest ago", []storage.Entry{at("a", 50*time.Hour, 11*time.Hour), at("b", 40*time.Hour, 12*time.Hour), at("c", time.Hour, 0)}, "bac", 0},
		{"verified lately", []storage.Entry{at("a", 50*time.Hour, time.Hour), at("b", 50*time.Hour, every-time.Minute)}, "", time.Minute},
		{"verified in the future", []storage.Entry{at("a", 50*time.Hour, -time.Hour)}, "a", 0},
		{"skipped", []storage.Entry{at("skip", 50*time.Hour, 0), at("b", time.Hour, 0)}, "b", 0},
	} {
		due, wait := scrub.Due(tc.entries, every, now, func(r storage.Ref) bool { return r.ID == "skip" })
		got := ""
		for _, e := range due {
			got += e.ID
		}
		if got != tc.want || got == "" && wait != tc.wait {
			t.Errorf("%s: %q after %v", tc.name, got, wait)
		}
	}
}

// lookedAt is an empty store that tells when it was looked through.
type lookedAt struct {
	storage.Store
	storage.Hints
	times []time.Duration
	begin time.Time
}

func (l *lookedAt) Subscribe(to storage.Event) (<-chan storage.Ref, func()) {
	return l.Hints.Subscribe(to)
}

func (l *lookedAt) List(context.Context, storage.Filter) ([]storage.Entry, error) {
	l.times = append(l.times, time.Since(l.begin).Round(time.Second))
	return nil, nil
}

// TestSealWakes looks for new dumps every ten minutes, and a minute after the last of some seals; seals that go on and on do
// not keep it from looking.
func TestSealWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &lookedAt{begin: time.Now()}
		sc := &scrub.Scrubber{Store: s, Log: slog.New(slog.DiscardHandler), Rate: 1 << 20, Every: time.Hour}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { sc.Run(ctx) })
		time.Sleep(11 * time.Minute)
		s.Give(storage.LogStored, storage.Ref{})
		s.Give(storage.Sealed, storage.Ref{})
		time.Sleep(30 * time.Second)
		s.Give(storage.Sealed, storage.Ref{})
		for range 100 { // from 13 minutes on
			time.Sleep(10 * time.Second)
			if time.Since(s.begin) > 13*time.Minute {
				s.Give(storage.Sealed, storage.Ref{})
			}
		}
		cancel()
		wg.Wait()
		want := []time.Duration{0, 10 * time.Minute, 12*time.Minute + 30*time.Second, 22*time.Minute + 30*time.Second}
		if !slices.Equal(s.times, want) {
			t.Errorf("looked at %v, want %v", s.times, want)
		}
	})
}
