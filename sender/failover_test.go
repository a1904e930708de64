package sender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// fakeNet is a network of receivers, each of which may be away at times.
type fakeNet struct {
	t     *testing.T // of the bubble
	start time.Time
	hosts map[string]*fakeHost

	mu    sync.Mutex
	asked []string // "name seconds" of each dial
}

type fakeHost struct {
	*fakeReceiver
	// away returns how a dial fails so long after the start: nil when it does not,
	// errHole when nothing answers.
	away func(time.Duration) error
}

var (
	errHole    = errors.New("black hole")
	errRefused = &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
)

func newFakeNet(t *testing.T, names ...string) *fakeNet {
	t.Helper()
	n := &fakeNet{t: t, start: time.Now(), hosts: map[string]*fakeHost{}}
	for _, name := range names {
		n.hosts[name] = &fakeHost{fakeReceiver: newFakeReceiver(t), away: func(time.Duration) error { return nil }}
	}
	return n
}

func (n *fakeNet) dial(ctx context.Context, name string) (net.Conn, error) {
	since := time.Since(n.start)
	n.mu.Lock()
	n.asked = append(n.asked, fmt.Sprintf("%s %d", name, int(since.Seconds())))
	n.mu.Unlock()
	h := n.hosts[name]
	switch err := h.away(since); {
	case errors.Is(err, errHole):
		<-ctx.Done()
		return nil, ctx.Err()
	case err != nil:
		return nil, err
	}
	c, err := h.dial(ctx, name)
	if err != nil {
		return nil, err
	}
	return roomy(c), nil
}

// roomy returns a connection that leads to c and takes writes while c's other end does not
// read, as the buffers of real lines do.
func roomy(c net.Conn) net.Conn {
	outer, inner := net.Pipe()
	queue := make(chan []byte, 1000)
	go func() {
		defer close(queue)
		for {
			buf := make([]byte, 32<<10)
			n, err := inner.Read(buf)
			if err != nil {
				return
			}
			queue <- buf[:n]
		}
	}()
	go func() {
		defer func() { _ = c.Close() }()
		for buf := range queue {
			_, _ = c.Write(buf) // once it fails, the rest is thrown away
		}
	}()
	go func() {
		_, _ = io.Copy(inner, c)
		_ = inner.Close()
		_, _ = io.Copy(io.Discard, c) // what is said to nobody holds up nobody
	}()
	return outer
}

// during returns a fakeHost.away: err from one time on, until another one.
func during(from, to time.Duration, err error) func(time.Duration) error {
	return func(now time.Duration) error {
		if now >= from && now < to {
			return err
		}
		return nil
	}
}

const (
	forever   = 1000 * time.Hour
	testStall = 2 * time.Minute
)

// options are those of a capture kernel, without Stubborn.
func (n *fakeNet) options(t *testing.T, names ...string) Options {
	t.Helper()
	return Options{
		To: names, Dial: n.dial, Level: 31, Patience: 15 * time.Minute, Stall: testStall, Workers: 2,
		Log: func(format string, args ...any) {
			t.Logf("%5.1f "+format, append([]any{time.Since(n.start).Seconds()}, args...)...)
		},
	}
}

// story runs a test in a bubble of time with the receivers a and b.
func story(t *testing.T, play func(n *fakeNet, o Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(t, "a", "b")
		defer time.Sleep(4 * time.Hour) // until the last receiver has let go
		play(n, n.options(t, "a", "b"))
	})
}

// mustSend wants a complete dump on a target and returns how long it took.
func mustSend(t *testing.T, n *fakeNet, o Options, target string) time.Duration {
	t.Helper()
	src, _ := newFakeSource(t)
	res, err := Send(t.Context(), src, o)
	if err != nil {
		t.Fatalf("%v, asked %v", err, n.asked)
	}
	if res.State != protocol.StateComplete || res.Target != target {
		t.Fatalf("got %q, want a complete dump on %s", res, target)
	}
	if !strings.Contains(res.String(), " on "+target) {
		t.Errorf("%q does not say where the dump is", res)
	}
	n.hosts[target].checkPages(mustPlan(t, src, o))
	return time.Since(n.start)
}

// TestGoesBackToTheReceiverThatHasMost holds that a restart of a receiver does not make
// the sender begin at nothing elsewhere.
func TestGoesBackToTheReceiverThatHasMost(t *testing.T) {
	story(t, func(n *fakeNet, o Options) {
		t := n.t
		a := n.hosts["a"]
		a.cutAfter, a.away = []int{5}, during(time.Nanosecond, 6*time.Second, errRefused)
		if took := mustSend(t, n, o, "a"); took > 15*time.Second {
			t.Errorf("took %v", took)
		}
		if n.hosts["b"].sessions.Load() > 0 {
			t.Errorf("asked %v, want no word to b", n.asked)
		}
	})
}

// TestKilledReceiver holds what a receiver costs that does not come back in mid-dump.
func TestKilledReceiver(t *testing.T) {
	for name, tc := range map[string]struct {
		how error
		max time.Duration
	}{"refuses": {errRefused, 20 * time.Second}, "is a black hole": {errHole, 25 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			story(t, func(n *fakeNet, o Options) {
				t := n.t
				a := n.hosts["a"]
				a.cutAfter, a.away = []int{5}, during(time.Nanosecond, forever, tc.how)
				if took := mustSend(t, n, o, "b"); took > tc.max {
					t.Errorf("took %v, want at most %v; asked %v", took, tc.max, n.asked)
				}
			})
		})
	}
}

// TestAgain: a network that comes up ends the pause before the next try.
func TestAgain(t *testing.T) {
	const back = 5 * time.Minute // the pauses are long by then
	story(t, func(n *fakeNet, o Options) {
		t := n.t
		for _, h := range n.hosts {
			h.away = during(0, back, errRefused)
		}
		again := make(chan struct{}, 1)
		o.Again = again
		time.AfterFunc(back, func() { again <- struct{}{} })
		if took := mustSend(t, n, o, "a"); took > back+time.Second {
			t.Errorf("took %v; asked %v", took, n.asked)
		}
	})
}

// TestFullerReceiverWins: both are gone, and b is the first that is asked when the network
// is back.
func TestFullerReceiverWins(t *testing.T) {
	story(t, func(n *fakeNet, o Options) {
		t := n.t
		a, b := n.hosts["a"], n.hosts["b"]
		a.cutAfter, a.away = []int{5}, during(time.Nanosecond, 40*time.Second, errHole)
		b.away = during(0, 25*time.Second, errHole)
		mustSend(t, n, o, "a")
		if b.sessions.Load() > 1 {
			t.Errorf("%d sessions with b; asked %v", b.sessions.Load(), n.asked)
		}
	})
}

// TestBlackHoleLeavesPatience: a target that answers nothing does not keep the others from
// being asked, however short the patience.
func TestBlackHoleLeavesPatience(t *testing.T) {
	for _, patience := range []time.Duration{0, time.Second, time.Minute} {
		story(t, func(n *fakeNet, o Options) {
			t := n.t
			n.hosts["a"].away = during(0, forever, errHole)
			o.Patience = patience
			if took := mustSend(t, n, o, "b"); took > 20*time.Second {
				t.Errorf("patience %v: took %v", patience, took)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	story(t, func(n *fakeNet, o Options) {
		t := n.t
		a, b := n.hosts["a"], n.hosts["b"]
		a.refuse = []error{&protocol.Error{Code: protocol.CodeNoSpace, Text: "full", RetryAfter: 40 * time.Second}}
		b.away = during(0, forever, errRefused)
		mustSend(t, n, o, "a")
		first, again := "", ""
		for _, ask := range n.asked {
			if at, ok := strings.CutPrefix(ask, "a "); ok {
				first, again = again, at
			}
		}
		var s int
		if _, err := fmt.Sscan(again, &s); err != nil || first != "0" || s < 40 || s > 60 {
			t.Errorf("asked %v, want a at once and again after 40 s", n.asked)
		}
		if len(n.asked) < 5 {
			t.Errorf("asked %v, want b tried meanwhile", n.asked)
		}
	})
}

// TestRetryAfterBeyondPatience: waiting for a time that lies far behind the end of the
// patience would only keep the machine down.
func TestRetryAfterBeyondPatience(t *testing.T) {
	story(t, func(n *fakeNet, o Options) {
		t := n.t
		n.hosts["a"].refuse = []error{&protocol.Error{Code: protocol.CodeBusy, RetryAfter: time.Hour}}
		o.To = []string{"a"}
		src, _ := newFakeSource(t)
		_, err := Send(t.Context(), src, o)
		if !errors.Is(err, protocol.CodeBusy) || time.Since(n.start) > time.Minute {
			t.Errorf("got %v after %v", err, time.Since(n.start))
		}
	})
}

// TestLogTakers holds that a receiver which takes the log alone does not end the matter.
func TestLogTakers(t *testing.T) {
	refusal := &protocol.Error{Code: protocol.CodeDeclined, Text: "seen it"}
	for name, prepare := range map[string]func(*fakeReceiver){
		"asks for the log":           func(f *fakeReceiver) { f.collect = protocol.CollectLog },
		"wants no pages of the plan": func(f *fakeReceiver) { f.sealEarly = "no room" },
		"declines after the log":     func(f *fakeReceiver) { f.refuseLate = refusal },
	} {
		t.Run(name+", another takes all", func(t *testing.T) {
			story(t, func(n *fakeNet, o Options) {
				t := n.t
				prepare(n.hosts["a"].fakeReceiver)
				mustSend(t, n, o, "b")
			})
		})
		t.Run(name+", another is down", func(t *testing.T) {
			story(t, func(n *fakeNet, o Options) {
				t := n.t
				prepare(n.hosts["a"].fakeReceiver)
				n.hosts["b"].away = during(0, forever, errRefused)
				src, _ := newFakeSource(t)
				res, err := Send(t.Context(), src, o)
				se, _ := errors.AsType[*SendError](err)
				switch {
				case err == nil && (!res.Declined || res.State != protocol.StateLogOnly || res.Target != "a"):
					t.Errorf("got %q, want the log on a", res)
				case err != nil && (se == nil || !se.Declined() || !strings.Contains(err.Error(), "a: ") || !strings.Contains(err.Error(), "b: ")):
					t.Errorf("got %v, want a word on both", err)
				}
				if got := n.hosts["a"].sessions.Load(); got != 1 {
					t.Errorf("a was asked %d times, want once", got)
				}
			})
		})
	}
}

// TestStubborn: in a capture kernel even refusals are tried again, later.
func TestStubborn(t *testing.T) {
	story(t, func(n *fakeNet, o Options) {
		t := n.t
		o.To, o.Stubborn = []string{"a"}, true
		n.hosts["a"].away = during(0, time.Minute, &handshakeError{errors.New("wrong pin")})
		if took := mustSend(t, n, o, "a"); took > 3*time.Minute {
			t.Errorf("took %v", took)
		}
		if len(n.asked) > 8 {
			t.Errorf("asked %v, want pauses", n.asked)
		}
	})
}

func TestSupersededIsNotChasedAnywhere(t *testing.T) {
	story(t, func(n *fakeNet, o Options) {
		t := n.t
		o.Stubborn = true
		n.hosts["a"].refuse = []error{protocol.Errorf(protocol.CodeSuperseded, "a newer session")}
		src, _ := newFakeSource(t)
		if _, err := Send(t.Context(), src, o); !errors.Is(err, protocol.CodeSuperseded) || len(n.asked) != 1 {
			t.Errorf("got %v, asked %v", err, n.asked)
		}
	})
}

// TestStall: a receiver that lives and acknowledges nothing is left for another one.
func TestStall(t *testing.T) {
	story(t, func(n *fakeNet, o Options) {
		t := n.t
		a := n.hosts["a"]
		a.neverAck, a.pings, a.window = true, true, 1<<20
		o.Level = 0
		if took := mustSend(t, n, o, "b"); took < testStall || took > testStall+time.Minute {
			t.Errorf("took %v, want a little more than %v", took, testStall)
		}
		if !errors.Is(a.peerErr, protocol.CodeTimeout) {
			t.Errorf("a heard %v, want %s", a.peerErr, protocol.CodeTimeout)
		}
	})
}

// TestLines: a line that moves is waited for, and one that does not for as long as there
// is nowhere else to go.
func TestLines(t *testing.T) {
	for _, tc := range []struct {
		name     string
		prepare  func(a, b *fakeHost)
		target   string
		min, max time.Duration
	}{
		{"it moves", func(a, _ *fakeHost) { a.waitFor, a.moves = 40*time.Minute, true }, "a", 40 * time.Minute, 41 * time.Minute},
		{"it does not", func(a, _ *fakeHost) { a.waitFor = 3 * time.Hour }, "b", queueLook, queueLook + time.Minute},
		{"the other is down", func(a, b *fakeHost) {
			a.waitFor, b.away = 40*time.Minute, during(0, forever, errHole)
		}, "a", 40 * time.Minute, 41 * time.Minute},
		{"the other comes back", func(a, b *fakeHost) {
			a.waitFor, b.away = 3*time.Hour, during(0, 20*time.Minute, errRefused)
		}, "b", 20 * time.Minute, 21 * time.Minute},
		{"the other is full as well", func(a, b *fakeHost) {
			a.waitFor, b.waitFor = 3*time.Hour, 40*time.Minute
		}, "b", 42 * time.Minute, 44 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			story(t, func(n *fakeNet, o Options) {
				t := n.t
				tc.prepare(n.hosts["a"], n.hosts["b"])
				if took := mustSend(t, n, o, tc.target); took < tc.min || took > tc.max {
					t.Errorf("took %v, want %v to %v", took, tc.min, tc.max)
				}
				if n.hosts["a"].sessions.Load() != 1 {
					t.Errorf("%d sessions with a, want the place kept", n.hosts["a"].sessions.Load())
				}
			})
		})
	}
}

// stuckImage is one whose reads do not come back until it is let go.
type stuckImage struct {
	*fakeImage
	stuck chan struct{}
	from  mem.PFN
}

func (s *stuckImage) ReadPages(p []byte, pfn mem.PFN) error {
	if pfn >= s.from {
		<-s.stuck
	}
	return s.fakeImage.ReadPages(p, pfn)
}

// TestHungReadIsNoStall: the line is fine and the receiver lives, so the session stays; but
// there are no signs of life, which is for the watchdog to judge.
func TestHungReadIsNoStall(t *testing.T) {
	story(t, func(n *fakeNet, o Options) {
		t := n.t
		src, img := newFakeSource(t)
		hung := &stuckImage{fakeImage: img, stuck: make(chan struct{}), from: mem.PFN(5000 / fewer)}
		src.image.Image = hung
		n.hosts["a"].pings = true
		var alive time.Time
		o.Alive = func() { alive = time.Now() }
		o.Level = 0
		done := make(chan error, 1)
		go func() {
			_, err := Send(t.Context(), src, o)
			done <- err
		}()
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if quiet := time.Since(alive); quiet < 29*time.Minute {
			t.Errorf("a sign of life %v after the dump began to hang", 30*time.Minute-quiet)
		}
		close(hung.stuck)
		if err := <-done; err != nil || len(n.asked) != 1 {
			t.Errorf("got %v, asked %v, want the one session to go on", err, n.asked)
		}
	})
}

// TestAlive holds that whatever a sender waits for, it shows that it is not hung.
func TestAlive(t *testing.T) {
	for name, prepare := range map[string]func(a, b *fakeHost){
		"in line": func(a, _ *fakeHost) { a.waitFor = 20 * time.Minute },
		"nobody is there": func(a, b *fakeHost) {
			a.away, b.away = during(0, 10*time.Minute, errRefused), during(0, forever, errHole)
		},
		"told to come later": func(a, b *fakeHost) {
			a.refuse = []error{&protocol.Error{Code: protocol.CodeBusy, RetryAfter: 10 * time.Minute}}
			b.away = during(0, forever, errHole)
		},
		"a silent receiver":  func(a, _ *fakeHost) { a.silent = true },
		"a stalled receiver": func(a, _ *fakeHost) { a.neverAck, a.pings, a.window = true, true, 1<<20 },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(n *fakeNet, o Options) {
				t := n.t
				prepare(n.hosts["a"], n.hosts["b"])
				last, longest := time.Now(), time.Duration(0)
				o.Level = 0
				o.Alive = func() { last, longest = time.Now(), max(longest, time.Since(last)) }
				src, _ := newFakeSource(t)
				if _, err := Send(t.Context(), src, o); err != nil {
					t.Fatal(err)
				}
				if longest = max(longest, time.Since(last)); longest > 55*time.Second {
					t.Errorf("no sign of life for %v", longest)
				}
				if time.Since(n.start) < 40*time.Second {
					t.Errorf("it waited for %v only", time.Since(n.start))
				}
			})
		})
	}
}

// TestDeadlineEverywhere holds that what is there is sealed whatever goes on when the time
// is up.
func TestDeadlineEverywhere(t *testing.T) {
	const deadline = 10 * time.Minute
	for _, tc := range []struct {
		name    string
		prepare func(a, b *fakeHost)
		state   protocol.State
	}{
		{"in line", func(a, b *fakeHost) { a.waitFor, b.away = deadline+10*time.Second, during(0, forever, errHole) }, protocol.StateLogOnly},
		{"waiting for acknowledgements", func(a, _ *fakeHost) { a.neverAck, a.window = true, 1<<20 }, protocol.StatePartial},
		{"dialling", func(a, b *fakeHost) {
			a.cutAfter, a.away = []int{5}, during(time.Nanosecond, deadline+20*time.Second, errHole)
			b.away = during(0, forever, errHole)
		}, protocol.StatePartial},
		{"between two tries", func(a, b *fakeHost) {
			a.cutAfter, a.away = []int{5}, during(time.Nanosecond, deadline, errRefused)
			b.away = during(0, forever, errRefused)
		}, protocol.StatePartial},
	} {
		t.Run(tc.name, func(t *testing.T) {
			story(t, func(n *fakeNet, o Options) {
				t := n.t
				a, b := n.hosts["a"], n.hosts["b"]
				tc.prepare(a, b)
				o.Level, o.Stall, o.Deadline = 0, 0, n.start.Add(deadline)
				src, _ := newFakeSource(t)
				res, err := Send(t.Context(), src, o)
				if err != nil {
					t.Fatalf("%v; asked %v", err, n.asked)
				}
				if res.State != tc.state || res.Reason != protocol.ReasonDeadline || res.Target != "a" {
					t.Errorf("got %q (%s), want %s", res, res.Reason, tc.state)
				}
				if took := time.Since(n.start); took < deadline || took > deadline+sealingGrace {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// TestDeadlineWithNobody says so, and what is where.
func TestDeadlineWithNobody(t *testing.T) {
	story(t, func(n *fakeNet, o Options) {
		t := n.t
		a := n.hosts["a"]
		a.cutAfter, a.away = []int{5}, during(time.Nanosecond, forever, errRefused)
		n.hosts["b"].away = during(0, forever, errHole)
		o.Deadline = n.start.Add(time.Minute)
		src, _ := newFakeSource(t)
		_, err := Send(t.Context(), src, o)
		if !errors.Is(err, ErrDeadline) || !strings.Contains(err.Error(), "(it has the log and ") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(n.start); took > time.Minute+sealingGrace {
			t.Errorf("took %v", took)
		}
	})
}
