package debuginfo

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	file, dir := fileWith(someID, 300<<10), t.TempDir()
	s := newTestServer(t, file)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.hold = func(sent int, _ *http.Request) {
		if sent >= 64<<10 {
			once.Do(func() { close(begun) })
			<-goOn
		}
	}
	first, _ := newTestFinder(t, dir, s.URL)
	done := make(chan error, 1)
	go func() {
		file, err := first.Find(t.Context(), some)
		if err == nil {
			err = file.Close()
		}
		done <- err
	}()
	<-begun
	second, said := newTestFinder(t, dir, s.URL)
	go func() {
		<-said.first // that it waits
		close(goOn)
	}()
	mustFind(t, second, file)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := s.requests.Load(); n != 1 || !strings.Contains(said.String(), "waiting") {
		t.Errorf("%d requests, want 1; the second was told %q", n, said)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the cache has %q", got)
	}
}

// TestWaitEnds: an interrupt ends the wait for another process.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := &Cache{Dir: dir, Limit: 1 << 20}
	p, _, err := c.lockPart(t.Context(), someID, func(string, ...any) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err = c.lockPart(ctx, someID, func(string, ...any) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := p.leave(io.ErrUnexpectedEOF); err != nil || len(names(t, dir)) != 0 {
		t.Errorf("left %q: %v", names(t, dir), err)
	}
}

func TestLimitOfTheCache(t *testing.T) {
	t.Parallel()
	dir, file := t.TempDir(), fileWith(someID, 100<<10)
	old := func(name string, age time.Duration) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 100<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	oldest, older, recent := old("aa.debug", 3*time.Hour), old("bb.debug", 2*time.Hour), old("cc.debug", time.Hour)
	interrupted, notOurs := old("dd.part", 4*time.Hour), old("notes.txt", 9*time.Hour)
	used, err := os.Open(oldest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = used.Close() }()
	if err := flock(used, 1); err != nil { // LOCK_SH
		t.Fatal(err)
	}
	s := newTestServer(t, file)
	f, _ := newTestFinder(t, dir, s.URL)
	f.Cache.Limit = 350 << 10
	mustFind(t, f, file)
	for _, path := range []string{oldest, recent, notOurs} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{older, interrupted} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", path)
		}
	}
}

// TestTooLarge: neither a file that says so nor one that does not gets more room than there is.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	for _, unsized := range []bool{false, true} {
		dir, s := t.TempDir(), newTestServer(t, fileWith(someID, 1<<20))
		s.unsized = unsized
		f, _ := newTestFinder(t, dir, s.URL)
		f.Cache.Limit = 512 << 10
		if why := mustFail(t, f); !strings.Contains(why, "512.0 KiB") {
			t.Errorf("got %q", why)
		}
		if got := names(t, dir); len(got) != 0 {
			t.Errorf("the cache has %q", got)
		}
	}
	dir := t.TempDir()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(1<<40))
		_, _ = w.Write(make([]byte, 64<<10))
	}))
	defer s.Close()
	f, _ := newTestFinder(t, dir, s.URL)
	f.Cache.Limit = 1 << 60
	if why := mustFail(t, f); !strings.Contains(why, "1.0 TiB are needed: no space left on device") {
		t.Errorf("got %q", why)
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("the cache has %q", got)
	}
}

// TestDamagedCache: a file of the cache that is no longer what it was is fetched again.
func TestDamagedCache(t *testing.T) {
	t.Parallel()
	file, dir := fileWith(someID, 90<<10), t.TempDir()
	s := newTestServer(t, file)
	f, _ := newTestFinder(t, dir, s.URL)
	path := mustFind(t, f, file).Name()
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	f, said := newTestFinder(t, dir, s.URL)
	mustFind(t, f, file)
	if !strings.Contains(said.String(), "damaged") {
		t.Errorf("told %q", said)
	}
}
