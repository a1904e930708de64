package local_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// readCounter counts how often a directory of dumps is read.
type readCounter struct {
	dumpdir.FS
	of    string
	reads atomic.Int64
}

func (c *readCounter) ReadDir(name string) ([]string, error) {
	if strings.HasSuffix(name, c.of) {
		c.reads.Add(1)
	}
	return c.FS.ReadDir(name)
}

// TestDumpsAreFoundWithoutReadingAllNames makes the calls of senders for many new dumps of a host. The store must read the directory of
// the host only once.
func TestDumpsAreFoundWithoutReadingAllNames(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	first := receive(t, s, 1)
	host := filepath.Join(dir, "dumps", first.Host)
	if err := os.Chtimes(host, time.Time{}, time.Now().Add(-time.Hour)); err != nil { // else its names are not cached
		t.Fatal(err)
	}
	count := &readCounter{FS: dumpdir.OS{}, of: first.Host}
	s.SetFS(count)
	for i := range 20 {
		ref := storage.Ref{Host: first.Host, ID: fmt.Sprintf("%032x", i+1<<8)}
		if _, err := s.Resume(t.Context(), ref, storage.ResumeOptions{}); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("a dump that is not there: %v", err)
		}
		w, err := s.Create(t.Context(), dumpdir.Meta{Host: ref.Host, ID: ref.ID, StartTime: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		d, err := s.Open(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := count.reads.Load(); got != 1 {
		t.Errorf("the directory was read %d times, want once", got)
	}
}

// TestNamesThatOthersChange moves, adds and removes dumps behind the back of a store that has cached their names.
func TestNamesThatOthersChange(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	first, second := receive(t, s, 1), receive(t, s, 2)
	for _, ref := range []storage.Ref{first, second} {
		wantOpens(t, s, ref, nil)
	}
	path := func(ref storage.Ref) string {
		e, err := s.Find(t.Context(), ref.String())
		if err != nil {
			t.Fatal(err)
		}
		return e.Path
	}
	from, away := path(first), filepath.Join(t.TempDir(), "away")
	if err := os.Rename(from, away); err != nil {
		t.Fatal(err)
	}
	wantOpens(t, s, first, storage.ErrNotFound)
	wantOpens(t, s, second, nil)
	if err := os.Rename(away, filepath.Join(filepath.Dir(from), "20200101T000000Z-"+first.ID[:dumpdir.ShortID])); err != nil {
		t.Fatal(err)
	}
	wantOpens(t, s, first, nil)
	if err := open(t, dir, storage.OpenOptions{}).Remove(t.Context(), second, storage.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	wantOpens(t, s, second, storage.ErrNotFound)
}

func wantOpens(t *testing.T, s storage.Store, ref storage.Ref, want error) {
	t.Helper()
	d, err := s.Open(t.Context(), ref)
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", ref, err, want)
	}
	if err == nil {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// meeting is an FS in which directories are made when all who want one are there, and nobody goes on before all have theirs.
type meeting struct {
	dumpdir.FS
	came, made sync.WaitGroup
}

func (m *meeting) MkdirAll(name string) error {
	m.came.Done()
	m.came.Wait()
	err := m.FS.MkdirAll(name)
	m.made.Done()
	m.made.Wait()
	return err
}

// TestDumpsOfOneHostMadeTogether creates dumps of one host at the same time in a store that knows the host's names. All are found.
func TestDumpsOfOneHostMadeTogether(t *testing.T) {
	const together = 4
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	first := receive(t, s, 1)
	if err := os.Chtimes(filepath.Join(dir, "dumps", first.Host), time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(t.Context(), storage.Ref{Host: first.Host, ID: fmt.Sprintf("%032x", 9)}, storage.ResumeOptions{}); !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err) // all names have been read
	}
	m := &meeting{FS: dumpdir.OS{}}
	m.came.Add(together)
	m.made.Add(together)
	s.SetFS(m)
	var wg sync.WaitGroup
	var refs []storage.Ref
	for i := range together {
		ref := storage.Ref{Host: first.Host, ID: fmt.Sprintf("%08x%024x", i+1<<16, 7)}
		refs = append(refs, ref)
		wg.Go(func() {
			w, err := s.Create(t.Context(), dumpdir.Meta{Host: ref.Host, ID: ref.ID, StartTime: time.Now()})
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, ref := range append(refs, first) {
		w, err := s.Resume(t.Context(), ref, storage.ResumeOptions{})
		if err != nil {
			t.Errorf("its sender does not find %s: %v", ref, err)
			continue
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}
