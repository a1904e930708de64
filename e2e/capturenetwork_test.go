package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

const (
	// netlossRate is the speed of the guest's line in kB/s.
	netlossRate = 1_500
	// netlossTime is how long the network is away at least, and half of it how long nothing has to arrive meanwhile.
	// What was on its way, up to a whole window, may still arrive before that.
	netlossTime = 20 * time.Second
)

// netlossRun is a machine that crashed and sends its dump.
type netlossRun struct {
	*killDump
	link  func(up bool) error
	ended chan struct{}
	run   *lab.Run
	err   error
}

// TestNetworkLoss takes the network from a capture kernel twice in the middle of its dump: a line that
// swallows everything, and a cable that is pulled out.
func TestNetworkLoss(t *testing.T) {
	t.Parallel() // it waits more than it computes
	s := judgesServe(t)
	r := &netlossRun{killDump: &killDump{store: s, line: newLine(t, s.address(t))}, ended: make(chan struct{})}
	r.line.slow(t, netlossRate)
	initrd := s.captureImage(t, r.line.Listen, "6.1", "")
	started := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
	defer cancel()
	go func() {
		defer close(r.ended)
		r.run, r.err = lab.RunSender(ctx, lab.Scenario{Kernel: "6.1"}, initrd, lab.SenderOptions{
			Start: func(link func(bool) error) { r.link = link; close(started) },
		})
	}()
	select {
	case <-started:
	case <-r.ended:
		t.Fatal(r.err)
	}
	const mib = 1 << 20
	r.lose(t, "black hole", 4*mib, func() (back func()) {
		up, down := r.line.toxic(t, "timeout", toReceiver, `{"timeout": 0}`), r.line.toxic(t, "timeout", toSender, `{"timeout": 0}`)
		return func() {
			r.line.cure(t, up)
			r.line.cure(t, down)
		}
	})
	r.lose(t, "cable", 12*mib, func() (back func()) {
		r.plug(t, false)
		return func() { r.plug(t, true) }
	})
	<-r.ended
	if r.err != nil {
		t.Fatal(r.err)
	}
	said := captureSaid(r.run)
	t.Logf("%s of QEMU; the capture kernel said\n%s", r.run.Duration.Round(time.Second), said)
	captureCheckConsole(t, said)
	s.checkCaptured(t)
}

// lose takes the network away when so many bytes of vmcore are there, and gives it back.
func (r *netlossRun) lose(t *testing.T, what string, bytes int64, take func() (back func())) {
	t.Helper()
	r.await(t, what, bytes)
	back := take()
	last := r.settle(t, what)
	back()
	r.await(t, what+" is over", last+1)
	t.Logf("%s: %d bytes of vmcore until it took effect, and more since it is over", what, last)
}

// settle waits until nothing arrives any more, and returns how much has. With a network the whole dump would arrive.
func (r *netlossRun) settle(t *testing.T, what string) int64 {
	t.Helper()
	time.Sleep(netlossTime / 2)
	for before, last := int64(-1), r.arrived(t); ; before, last = last, r.arrived(t) {
		if last == before {
			return last
		}
		select {
		case <-r.ended:
			t.Fatalf("%s: the machine ended: %v\n%s", what, r.err, captureSaid(r.run))
		case <-time.After(netlossTime / 2):
		}
	}
}

// await waits until more than so many bytes of vmcore are there.
func (r *netlossRun) await(t *testing.T, what string, bytes int64) {
	t.Helper()
	for r.arrived(t) < bytes {
		select {
		case <-r.ended:
			t.Fatalf("%s: the machine ended: %v\n%s", what, r.err, captureSaid(r.run))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (r *netlossRun) plug(t *testing.T, in bool) {
	t.Helper()
	if err := r.link(in); err != nil {
		t.Fatal(err)
	}
}
