package sender

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/uts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options are those of a quick test.
func options(f *fakeReceiver) Options {
	return Options{
		To: []string{"tls://fake:1"}, Dial: f.dial, Level: 31, Patience: time.Minute, Workers: 2,
		Log: func(format string, args ...any) { f.t.Logf(format, args...) },
	}
}

func mustPlan(t *testing.T, src *Source, o Options) *Plan {
	t.Helper()
	p, err := src.Plan(t.Context(), o.Level)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSendEncodings(t *testing.T) {
	for name, want := range map[string]protocol.Encoding{
		"auto": protocol.EncodingSnappyPage, "snappy": protocol.EncodingSnappyPage, "zstd": protocol.EncodingZstdPage,
		"lz4": protocol.EncodingLZ4Block, "zstd-block": protocol.EncodingZstdBlock, "none": protocol.EncodingNone,
	} {
		t.Run(name, func(t *testing.T) {
			src, _ := newFakeSource(t)
			f := newFakeReceiver(t)
			o := options(f)
			o.Level, o.Encoding = 0, name
			res, err := Send(t.Context(), src, o)
			if err != nil {
				t.Fatal(err)
			}
			plan := mustPlan(t, src, o)
			f.checkPages(plan)
			if res.State != protocol.StateComplete || res.Pages != plan.Sum.Kept || res.Reason != protocol.ReasonComplete {
				t.Errorf("result %+v", res)
			}
			if f.encodings[want] == 0 {
				t.Errorf("encodings %v, want %s", f.encodings, want)
			}
			if name != "none" && name != "auto" && len(f.encodings) != 1 {
				t.Errorf("encodings %v, want only %s", f.encodings, want)
			}
		})
	}
}

func TestTierOrder(t *testing.T) {
	src, _ := newFakeSource(t)
	f := newFakeReceiver(t)
	o := options(f)
	o.Level, o.Workers = 0, 1
	if _, err := Send(t.Context(), src, o); err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(f.order) {
		t.Errorf("chunks came as %v", f.order)
	}
	var names []string
	for _, tier := range f.plan.Tiers {
		names = append(names, fmt.Sprintf("%s %d %v", tier.Name, tier.Pages, tier.Essential))
	}
	// All 19.5 units of pages but the first one and the 2 units with hardware poison.
	u := 1000 / fewer
	want := fmt.Sprintf("log 0 true, kernel %d true, memmap %d false, user %d false, free %d false", 6*u-1, 2*u, 7*u+u/2, 2*u)
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("tiers %s, want %s", got, want)
	}
	if f.hello.CrashTime != 1700000000 || f.hello.Machine != "x86_64" || f.logEnd.Error == "" {
		t.Errorf("hello %+v, end of log %+v", f.hello, f.logEnd)
	}
}

func TestResumeAfterCuts(t *testing.T) {
	src, _ := newFakeSource(t)
	f := newFakeReceiver(t)
	f.cutAfter = []int{1, 7, 3, 20 / fewer}
	o := options(f)
	o.Level = 0
	res, err := Send(t.Context(), src, o)
	if err != nil {
		t.Fatal(err)
	}
	f.checkPages(mustPlan(t, src, o)) // the receiver refuses any page that comes twice
	if res.Sessions != 5 || f.omitted != 4 {
		t.Errorf("%d sessions, plan left out in %d, want 5 and 4", res.Sessions, f.omitted)
	}
}

// TestResumeUnnamedPlan goes on with a receiver that does not tell which plan it has, and so is sent it each time.
func TestResumeUnnamedPlan(t *testing.T) {
	src, _ := newFakeSource(t)
	f := newFakeReceiver(t)
	f.cutAfter, f.namesNoPlan = []int{2, 5}, true
	o := options(f)
	o.Level = 0
	res, err := Send(t.Context(), src, o)
	if err != nil {
		t.Fatal(err)
	}
	f.checkPages(mustPlan(t, src, o))
	if res.Sessions != 3 || f.omitted != 0 {
		t.Errorf("%d sessions, plan left out in %d, want 3 and 0", res.Sessions, f.omitted)
	}
}

// TestAnyCutAnyResume cuts the byte stream wherever it likes, and now and then replaces
// the sender by a new process. What arrives is the same as ever.
func TestAnyCutAnyResume(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			cutAndResume(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func cutAndResume(t *testing.T, r *rand.Rand) {
	t.Helper()
	f := newFakeReceiver(t)
	src, _ := newFakeSource(t)
	o := options(f)
	o.Level, o.Log = 1, nil
	cuts := 6
	o.Dial = func(ctx context.Context, to string) (net.Conn, error) {
		c, err := f.dial(ctx, to)
		if cuts--; err != nil || cuts < 0 {
			return c, err
		}
		return &brittleConn{Conn: c, left: r.IntN(8 << 20 / fewer)}, nil
	}
	for {
		o.Patience = []time.Duration{0, time.Minute}[r.IntN(2)]
		res, err := Send(t.Context(), src, o)
		if err == nil && res.State == protocol.StateComplete {
			break
		}
		if err == nil || cuts < 0 {
			t.Fatal(res, err)
		}
		src, _ = newFakeSource(t)
	}
	f.checkPages(mustPlan(t, src, o))
}

// brittleConn breaks after so many bytes, in the middle of a write if it comes so.
type brittleConn struct {
	net.Conn
	left int
}

func (c *brittleConn) Write(p []byte) (int, error) {
	if c.left < len(p) {
		n, _ := c.Conn.Write(p[:c.left])
		_ = c.Close()
		return n, errCut
	}
	c.left -= len(p)
	return c.Conn.Write(p)
}

// TestAutoOnSlowLine holds that a line that holds up the encoders gets the stronger code.
func TestAutoOnSlowLine(t *testing.T) { synctest.Test(t, testAutoOnSlowLine) }

func testAutoOnSlowLine(t *testing.T) {
	src, _ := fakeSourceOf(t, 1000)
	f := newFakeReceiver(t)
	o := options(f)
	o.Level = 0
	o.Dial = func(ctx context.Context, to string) (net.Conn, error) {
		c, err := f.dial(ctx, to)
		return &slowConn{c}, err
	}
	if _, err := Send(t.Context(), src, o); err != nil {
		t.Fatal(err)
	}
	f.checkPages(mustPlan(t, src, o))
	if f.encodings[protocol.EncodingSnappyPage] == 0 || f.encodings[protocol.EncodingZstdPage]+f.encodings[protocol.EncodingZstdBlock] == 0 {
		t.Errorf("encodings %v, want snappy first and zstd then", f.encodings)
	}
}

// slowConn takes 40 ms for a chunk, which is far more than its encoding takes.
type slowConn struct{ net.Conn }

func (c *slowConn) Write(p []byte) (int, error) {
	if len(p) > 100<<10 {
		time.Sleep(40 * time.Millisecond)
	}
	return c.Conn.Write(p)
}

func TestResumeByAnotherProcess(t *testing.T) {
	f := newFakeReceiver(t)
	f.cutAfter = []int{10 / fewer}
	src, _ := newFakeSource(t)
	o := options(f)
	o.Patience = 0
	if _, err := Send(t.Context(), src, o); err == nil {
		t.Fatal("complete in spite of the cut")
	}
	first := f.hello.DumpID
	src, _ = newFakeSource(t)
	res, err := Send(t.Context(), src, o)
	if err != nil || res.State != protocol.StateComplete {
		t.Fatal(res, err)
	}
	if f.hello.DumpID != first {
		t.Error("another dump id")
	}
	f.checkPages(mustPlan(t, src, o))
}

func TestLostPages(t *testing.T) {
	src, img := fakeSourceOf(t, 1000)
	lost := []mem.PFN{1, 256, 257, 3000, 3333}
	for pfn := mem.PFN(3500); pfn < 3900; pfn++ { // more than a whole chunk
		lost = append(lost, pfn)
	}
	for _, pfn := range lost {
		img.bad[pfn] = true
	}
	f := newFakeReceiver(t)
	f.cutAfter = []int{4}
	o := options(f)
	res, err := Send(t.Context(), src, o)
	if err != nil {
		t.Fatal(err)
	}
	f.checkPages(mustPlan(t, src, o), lost...)
	n := uint64(len(lost))
	if res.State != protocol.StatePartial || res.Reason != protocol.ReasonUnreadable || res.Lost != n || f.finish.LostPages != n {
		t.Errorf("result %+v, finish %+v, want %d lost", res, f.finish, n)
	}
	if !strings.Contains(res.String(), fmt.Sprintf("%d pages unreadable", n)) || !strings.Contains(f.finish.Text, "pfn 1: ") {
		t.Errorf("%q, %q", res, f.finish.Text)
	}
}

func TestDeadline(t *testing.T) { synctest.Test(t, testDeadline) }

func testDeadline(t *testing.T) {
	src, _ := newFakeSource(t)
	f := newFakeReceiver(t)
	f.neverAck, f.window = true, 2<<20 // so the sender is stuck when the deadline comes
	o := options(f)
	o.Deadline = time.Now().Add(300 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	res, err := Send(ctx, src, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.State != protocol.StatePartial || res.Reason != protocol.ReasonDeadline || f.finish.Reason != protocol.ReasonDeadline {
		t.Errorf("result %+v, finish %+v", res, f.finish)
	}
}

func TestWindow(t *testing.T) { synctest.Test(t, testWindow) }

func testWindow(t *testing.T) {
	src, _ := newFakeSource(t)
	f := newFakeReceiver(t)
	f.neverAck, f.window = true, 3<<20
	o := options(f)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := Send(ctx, src, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.maxUnack > f.window || f.maxUnack < f.window/2 {
		t.Errorf("%d bytes unacknowledged, window %d", f.maxUnack, f.window)
	}
}

func TestWhatReceiversWant(t *testing.T) {
	for _, tc := range []struct {
		name    string
		collect protocol.Collect
		logOnly bool
		reason  protocol.Reason
		state   protocol.State
		says    string
	}{
		{"essential", protocol.CollectEssential, false, protocol.ReasonEssential, protocol.StatePartial, "essential part (as told)"},
		{"log", protocol.CollectLog, false, protocol.ReasonLogOnly, protocol.StateLogOnly, "dump declined (as told)"},
		{"sender wants no more", protocol.CollectAll, true, protocol.ReasonLogOnly, protocol.StateLogOnly, "log stored"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, _ := newFakeSource(t)
			f := newFakeReceiver(t)
			f.collect, f.waits = tc.collect, 3
			o := options(f)
			o.LogOnly = tc.logOnly
			res, err := Send(t.Context(), src, o)
			if err != nil {
				t.Fatal(err)
			}
			if res.State != tc.state || f.finish.Reason != tc.reason || !strings.Contains(res.String(), tc.says) {
				t.Errorf("result %q, %+v", res, f.finish)
			}
			if tc.collect == protocol.CollectEssential && uint64(len(f.pages)) != f.plan.Tiers[tierLog].Pages+f.plan.Tiers[tierKernel].Pages {
				t.Errorf("%d pages, want those of the essential tiers", len(f.pages))
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name     string
		refuse   []error
		stubborn bool
		want     error
		sessions int
	}{
		{"busy, then not", []error{protocol.CodeBusy, protocol.Errorf(protocol.CodeBusy, "full")}, false, nil, 3},
		{"declined", []error{protocol.Errorf(protocol.CodeDeclined, "no")}, false, protocol.CodeDeclined, 1},
		{"superseded, however stubborn", []error{protocol.Errorf(protocol.CodeSuperseded, "a newer session")}, true, protocol.CodeSuperseded, 1},
		{"identity, mended meanwhile", []error{protocol.Errorf(protocol.CodeIdentity, "who?")}, true, nil, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, _ := newFakeSource(t)
			f := newFakeReceiver(t)
			f.refuse = tc.refuse
			o := options(f)
			o.Stubborn = tc.stubborn
			_, err := Send(t.Context(), src, o)
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if int(f.sessions.Load()) != tc.sessions {
				t.Errorf("%d sessions, want %d", f.sessions.Load(), tc.sessions)
			}
		})
	}
}

// TestHostileTexts holds that nothing in a dump keeps it from being sent.
func TestHostileTexts(t *testing.T) {
	src, img := newFakeSource(t)
	for range 1000 {
		src.warn("%s", strings.Repeat("\x1b[2J\"\\", 1000))
	}
	img.info.Machine = 0
	img.info.Utsname = uts.Name{Machine: strings.Repeat("\x00ü", 100), Nodename: "\n\xff"}
	img.info.PhysBase = 1 << 63
	f := newFakeReceiver(t)
	o := options(f)
	o.Log = nil
	res, err := Send(t.Context(), src, o)
	if err != nil || res.State != protocol.StateComplete {
		t.Error(res, err)
	}
}

func TestCancel(t *testing.T) {
	src, _ := newFakeSource(t)
	f := newFakeReceiver(t)
	f.neverAck, f.window = true, 1<<20
	ctx, cancel := context.WithCancel(t.Context())
	o := options(f)
	o.Meter = new(Meter)
	go func() {
		for o.Meter.Progress().RawBytes == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := Send(ctx, src, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !errors.Is(f.peerErr, protocol.CodeCancelled) {
		t.Errorf("the receiver heard %v, want %s", f.peerErr, protocol.CodeCancelled)
	}
}

func TestPanicInAWalkerCostsOnlyTheFilter(t *testing.T) {
	src, _ := fakeSourceOf(t, 1000)
	src.pages = panicWalker{}
	f := newFakeReceiver(t)
	var lines []string
	var mu sync.Mutex
	o := options(f)
	o.Log = func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, fmt.Sprintf(format, args...))
	}
	res, err := Send(t.Context(), src, o)
	if err != nil || res.State != protocol.StateComplete || res.Pages != 19499 {
		t.Errorf("got %+v, %v, want all 19499 pages", res, err)
	}
	if !strings.Contains(strings.Join(lines, "\n"), "a bug") {
		t.Errorf("no warning in %q", lines)
	}
}
