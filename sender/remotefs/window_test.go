package remotefs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
)

// slowLine carries rate bytes a second in each direction, and what is sent later arrives later.
type slowLine struct {
	rate int
	trip time.Duration

	mu       sync.Mutex
	up, down time.Time // when it is free
}

// takes returns the longest time that writing and reading a file may take: a tenth for headers, and round trips to get going, whose
// number depends on what is sent first: 8 to 37 were seen. No more is in flight than the largest windows.
func (l *slowLine) takes(size int) time.Duration {
	up, down := float64(l.rate), float64(l.rate)
	if trip := l.trip.Seconds(); trip > 0 {
		up, down = min(up, farInFlight/trip), min(down, aheadLen/trip)
	}
	return time.Duration(1.1*float64(size)*(1/up+1/down)*float64(time.Second)) + 60*l.trip
}

// farInFlight bounds the bytes in flight.
const farInFlight = 4 << 20

// callBytes is what each call and each answer has beside data.
const callBytes = 150

// call waits as long as a call with so much data takes, and its answer.
func (l *slowLine) call(up, down int) {
	l.carry(&l.up, up)
	l.carry(&l.down, down)
	time.Sleep(l.trip)
}

func (l *slowLine) carry(free *time.Time, n int) {
	l.mu.Lock()
	now := time.Now()
	if free.Before(now) {
		*free = now
	}
	*free = free.Add(time.Duration(n+callBytes) * time.Second / time.Duration(l.rate))
	wait := free.Sub(now)
	l.mu.Unlock()
	time.Sleep(wait)
}

// farDirectory is a directory behind a slow line.
type farDirectory struct {
	directory
	line *slowLine
}

func (d farDirectory) Open(name string, flags int) (Handle, func() error, error) {
	d.line.call(0, 0)
	h, after, err := d.directory.Open(name, flags)
	return farFile{h, d.line}, after, err
}

type farFile struct {
	Handle
	line *slowLine
}

func (f farFile) WriteAt(p []byte, off int64) (int, error) {
	f.line.call(len(p), 0)
	return f.Handle.WriteAt(p, off)
}

func (f farFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.Handle.ReadAt(p, off)
	f.line.call(0, n)
	return n, err
}

func (f farFile) Sync() error { f.line.call(0, 0); return f.Handle.Sync() }

// TestSlowLine: over a line of 64 kbit/s and more, with round trips up to two seconds, the heartbeat gets through what is written and
// read, long before somebody takes the lock for stale.
func TestSlowLine(t *testing.T) {
	for name, line := range map[string]*slowLine{
		"64 kbit/s":                 {rate: 8_000},
		"64 kbit/s and far":         {rate: 8_000, trip: 600 * time.Millisecond},
		"512 kbit/s and very far":   {rate: 64_000, trip: 2 * time.Second},
		"1 Mbit/s":                  {rate: 125_000, trip: 30 * time.Millisecond},
		"100 Mbit/s":                {rate: 12_500_000, trip: 10 * time.Millisecond},
		"100 Mbit/s and far enough": {rate: 12_500_000, trip: 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testSlowLine(t, line) })
		})
	}
}

func testSlowLine(t *testing.T, line *slowLine) {
	t.Helper()
	dir := t.TempDir()
	near := New(directory{dir}, Config{Owner: "other", ReadLen: 128 << 10, WriteLen: 128 << 10, InFlight: farInFlight})
	far := New(farDirectory{directory{dir}, line}, Config{Owner: "me", ReadLen: 128 << 10, WriteLen: 128 << 10, InFlight: farInFlight, RoundTrip: line.trip})
	l, err := far.Lock(".")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan time.Duration)
	size := min(100*line.rate, 32<<20)
	go func() { done <- farCopy(t, far, size) }()
	text, since, longest := "", time.Now(), time.Duration(0)
	for {
		select {
		case took := <-done:
			// A heartbeat comes every 3 s and takes three calls. What is sent first decides about a call more or less, and who looks
			// every second sees a change late: over 64 kbit/s, that is 14 to 16 s.
			if limit := defaultTiming.stale * 2 / 3; longest > limit {
				t.Errorf("the lock did not change for %v, want at most %v", longest, limit)
			}
			if most := line.takes(size); took > most {
				t.Errorf("it took %v, want at most %v", took, most)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			return
		case <-time.After(time.Second):
		}
		if _, err := near.Lock("."); !errors.Is(err, dumpdir.ErrLocked) {
			t.Fatalf("another writer: %v, want ErrLocked", err)
		}
		b, err := os.ReadFile(filepath.Join(dir, LockName))
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != text {
			text, since = string(b), time.Now()
		}
		longest = max(longest, time.Since(since))
	}
}

// farCopy writes a file of so many bytes, reads it, and returns how long that took.
func farCopy(t *testing.T, f *FS, size int) time.Duration {
	t.Helper()
	start := time.Now()
	file, err := f.Create("f")
	if err != nil {
		t.Error(err)
		return 0
	}
	p := make([]byte, 1<<20)
	for off := 0; off < size; off += len(p) {
		if _, err := file.WriteAt(p[:min(len(p), size-off)], int64(off)); err != nil {
			t.Error(err)
		}
	}
	if err := file.Sync(); err != nil {
		t.Error(err)
	}
	for off := 0; off < size; off += len(p) {
		if n, err := file.ReadAt(p, int64(off)); n != min(len(p), size-off) || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes at %d, %v", n, off, err)
		}
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	return time.Since(start)
}
