package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// cacheForTest gives the test a cache of its own.
func cacheForTest(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("COREHAUL_LAB_CACHE", dir)
	return dir
}

func TestCachedMakesOnce(t *testing.T) {
	cacheForTest(t)
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			dir, err := cached(t.Context(), "things", "one", func(dir string) error {
				made.Add(1)
				return os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644)
			})
			if err != nil {
				t.Error(err)
			} else if !exists(filepath.Join(dir, "f")) {
				t.Errorf("%s was returned before it was complete", dir)
			}
		})
	}
	wg.Wait()
	if got := made.Load(); got != 1 {
		t.Errorf("made %d times, want once", got)
	}
}

func TestCachedKeepsNothingHalfMade(t *testing.T) {
	root := cacheForTest(t)
	failure := errors.New("half way")
	_, err := cached(t.Context(), "things", "one", func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
			return err
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("got error %v, want %v", err, failure)
	}
	for _, sub := range []string{"things", "tmp"} {
		if left, _ := filepath.Glob(filepath.Join(root, sub, "*")); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

func TestLockWaitsUntilContextEnds(t *testing.T) {
	cacheForTest(t)
	unlock, err := lock(t.Context(), "l")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, "l"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second lock: got %v, want %v", err, context.DeadlineExceeded)
	}
	unlock()
	if unlock, err = lock(t.Context(), "l"); err != nil {
		t.Fatalf("lock after unlock: %v", err)
	}
	unlock()
}

// TestSweepRemovesOnlyOldLeftovers: a directory that is being filled survives, even if unpacked files make it look
// old.
func TestSweepRemovesOnlyOldLeftovers(t *testing.T) {
	root := cacheForTest(t)
	dir, err := tempDir("kernel")
	if err != nil {
		t.Fatal(err)
	}
	built := time.Now().AddDate(-2, 0, 0)
	if err := os.Chtimes(dir, built, built); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		after time.Duration
		there bool
	}{{time.Hour, true}, {25 * time.Hour, false}} {
		sweep(filepath.Join(root, "tmp"), time.Now().Add(tc.after))
		if got := isDir(dir); got != tc.there {
			t.Errorf("after %v: is there: %t, want %t", tc.after, got, tc.there)
		}
	}
}
