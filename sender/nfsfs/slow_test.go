package nfsfs

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/sender/nfsfs/nfs3"
	"github.com/corehaul/corehaul/sender/nfsfs/nfs3/nfs3test"
)

// slowLine is a connection that carries rate bytes a second in each direction. Like a kernel, it takes all that is written.
type slowLine struct {
	net.Conn
	queue chan []byte
}

const rate = 64_000 / 8

func newSlowLine(c net.Conn) slowLine {
	l := slowLine{c, make(chan []byte, 1<<10)}
	go func() {
		for b := range l.queue {
			time.Sleep(time.Second * time.Duration(len(b)) / rate)
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	return l
}

func (l slowLine) Write(p []byte) (int, error) {
	l.queue <- bytes.Clone(p)
	return len(p), nil
}

func (l slowLine) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	time.Sleep(time.Second * time.Duration(n) / rate)
	return n, err
}

// TestSlowLine writes as much as may be in flight on a fast line, and reads it, over 64 kbit/s. Meanwhile nobody else takes the lock for
// stale.
func TestSlowLine(t *testing.T) { synctest.Test(t, testSlowLine) }

func testSlowLine(t *testing.T) {
	s := nfs3test.New(t, nfs3test.Behaviour{})
	var lines []slowLine
	conf := nfs3.Config{Port: 1, MountPort: 1, Dial: func(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
		c, err := s.Dial(ctx, d, network, addr)
		line := newSlowLine(c)
		lines = append(lines, line)
		return line, err
	}}
	f, err := Mount(t.Context(), conf, nfs3test.Export, "me")
	if err != nil {
		t.Fatal(err)
	}
	lock, err := f.Lock(".")
	if err != nil {
		t.Fatal(err)
	}
	watched := watchLock(t, mount(t, s, "other"))
	file, err := f.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("text"), inFlight/4)
	if _, err := file.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := file.Sync(); err != nil {
		t.Error(err)
	} else if _, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, or other contents", err)
	}
	if err := file.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	watched()
	if err := lock.Close(); err != nil {
		t.Error(err)
	}
	f.Close()
	for _, l := range lines {
		close(l.queue)
	}
}

// watchLock tries to take a lock that another one has, about every second, until the returned function is called.
func watchLock(t *testing.T, f *FS) (stop func()) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := f.Lock("."); !errors.Is(err, dumpdir.ErrLocked) {
				t.Errorf("another writer: %v, want ErrLocked", err)
				return
			}
			select {
			case <-quit:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	return func() { close(quit); <-done }
}
