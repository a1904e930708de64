package watch_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/internal/outputtest"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/receiver/watch"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// grace is that of all tests. Nothing waits for it: the clock of a rig is set.
const grace = 10 * time.Minute

// rig is a watched directory and a store.
type rig struct {
	t        testing.TB
	dir      string
	data     string
	limits   admission.Limits
	store    storage.Store
	w        *watch.Watcher
	log      outputtest.Buffer
	at       time.Time
	machines uint64
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	r := &rig{t: tb, dir: tb.TempDir(), data: filepath.Join(tb.TempDir(), "data"), at: time.Now()}
	r.start()
	return r
}

// start opens the store and makes a watcher, as a start of the receiver does.
func (r *rig) start() {
	r.t.Helper()
	store, err := local.Open(r.t.Context(), r.data, storage.OpenOptions{Log: slog.New(slog.NewTextHandler(&r.log, nil))})
	if err != nil {
		r.t.Fatal(err)
	}
	r.store = store
	r.t.Cleanup(func() { _ = store.Close() })
	r.watch()
}

// watch makes a watcher.
func (r *rig) watch() {
	r.t.Helper()
	var err error
	if r.w, err = watch.New(r.config(r.dir)); err != nil {
		r.t.Fatal(err)
	}
	r.w.SetClock(func() time.Time { return r.at })
}

func (r *rig) config(dirs ...string) watch.Config {
	log := slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return watch.Config{
		Dirs: dirs, Store: r.store, Room: admission.NewRoom(r.store, r.limits, log), State: filepath.Join(r.data, "state"), Data: r.data,
		Log: log, Tool: "test", Codec: kdumpfile.Snappy, Grace: grace,
	}
}

// look looks at everything that is ready.
func (r *rig) look() { r.w.Look(r.t.Context()) }

// later is a look after some time.
func (r *rig) later(d time.Duration) {
	r.at = r.at.Add(d)
	r.look()
}

// machine makes another machine.
func (r *rig) machine(host string) *dumpdirtest.Machine {
	r.machines++
	m := dumpdirtest.NewMachine(r.machines, 40, 16)
	m.Meta.Host, m.Meta.Transport, m.Meta.ID = host, "nfs", fmt.Sprintf("%08x%024x", r.machines, 7)
	return m
}

// writer begins a dump in the watched directory, as a sender with a depot does, with its first chunks.
func (r *rig) writer(m *dumpdirtest.Machine, chunks int) *dumpdir.Writer {
	r.t.Helper()
	dir := filepath.Join(r.dir, "dumps", m.Meta.Host, dumpdir.DirName(&m.Meta))
	w, err := dumpdir.Create(dumpdir.OS{}, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = w.Close() })
	if err := errors.Join(w.StoreLog(bytes.NewReader(m.Log)), m.SetPlan(w)); err != nil {
		r.t.Fatal(err)
	}
	r.chunks(w, m, 0, chunks)
	return w
}

// chunks commits the chunks from first to before end.
func (r *rig) chunks(w *dumpdir.Writer, m *dumpdirtest.Machine, first, end int) {
	r.t.Helper()
	for i := first; i < end; i++ {
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			r.t.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		r.t.Fatal(err)
	}
}

// seal seals and closes a dump, and returns its directory.
func (r *rig) seal(w *dumpdir.Writer) string {
	r.t.Helper()
	_, err := w.Seal(r.t.Context(), "the deadline is over")
	if err := errors.Join(err, w.Close()); err != nil {
		r.t.Fatal(err)
	}
	return w.Dir()
}

// send puts a whole dump into the watched directory.
func (r *rig) send(m *dumpdirtest.Machine) string {
	r.t.Helper()
	return r.seal(r.writer(m, len(m.Chunks)))
}

// list returns what the store has.
func (r *rig) list() []storage.Entry {
	r.t.Helper()
	list, err := r.store.List(r.t.Context(), storage.Filter{})
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// one returns the only dump of the store, and fails unless it has a state.
func (r *rig) one(state dumpdir.State) storage.Entry {
	r.t.Helper()
	list := r.list()
	if len(list) != 1 || list[0].State() != state {
		for i := range list {
			r.t.Logf("%s %s: %s", list[i].Ref, list[i].State(), list[i].Manifest.Reason)
		}
		r.t.Fatalf("the store has %d dumps, want one that is %s\n%s", len(list), state, r.log.String())
	}
	return list[0]
}

// none fails if the store has a dump.
func (r *rig) none() {
	r.t.Helper()
	if list := r.list(); len(list) != 0 {
		r.t.Fatalf("the store has %d dumps: %s, %s\n%s", len(list), list[0].Ref, list[0].State(), r.log.String())
	}
}

// verify fails unless the stored dump is sound.
func (r *rig) verify(ref storage.Ref) {
	r.t.Helper()
	d, err := r.store.Open(r.t.Context(), ref)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if rep, err := d.Verify(r.t.Context(), dumpdir.VerifyOptions{}); err != nil || !rep.OK() {
		r.t.Errorf("verify: %+v, %v", rep, err)
	}
}

// put writes a file of kdump that was finished some time ago.
func (r *rig) put(name string, b []byte, ago time.Duration) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600))
	old := time.Now().Add(-ago)
	if err := errors.Join(err, os.Chtimes(path, old, old)); err != nil {
		r.t.Fatal(err)
	}
	return path
}
