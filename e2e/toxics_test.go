package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/sender"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// toxicsRate is the speed of the lines in kB/s, so that faults come in the middle of the dump.
const toxicsRate = 8_000

// toxicsDump is one dump over a bad line, with both ends in this process.
type toxicsDump struct {
	line   *line
	data   string
	meter  *sender.Meter
	done   chan struct{} // closed when the sender has ended
	dialed atomic.Int64
	// refuse is the part of the connections that are refused.
	refuse  float64
	refused atomic.Int64
	conn    atomic.Pointer[net.Conn] // the newest
}

// toxicsFaults are the ways in which lines fail. Each gets a dump that has begun.
var toxicsFaults = []struct {
	name   string
	refuse float64
	fault  func(*testing.T, *toxicsDump)
}{
	{"cut", 0, func(t *testing.T, d *toxicsDump) {
		t.Helper()
		for _, percent := range []uint64{10, 30, 50, 70, 90} {
			d.await(t, percent)
			d.line.cut(t)
		}
	}},
	{"reset", 0, func(t *testing.T, d *toxicsDump) {
		t.Helper()
		for _, percent := range []uint64{20, 50} {
			d.await(t, percent)
			d.reset(t)
		}
	}},
	{"black hole for 30 s", 0, func(t *testing.T, d *toxicsDump) {
		t.Helper()
		d.await(t, 40)
		up, down := d.line.toxic(t, "timeout", toReceiver, `{"timeout": 0}`), d.line.toxic(t, "timeout", toSender, `{"timeout": 0}`)
		before := d.meter.Progress()
		time.Sleep(30 * time.Second)
		if p := d.meter.Progress(); p.Pages > before.Pages+toxicsInFlight {
			t.Errorf("%d pages became durable while the line was dead", p.Pages-before.Pages)
		}
		d.line.cure(t, up)
		d.line.cure(t, down)
	}},
	{"1 % of connections refused", 0.01, toxicsManyCuts},
	{"half of the connections refused", 0.5, toxicsManyCuts},
	{"200 ms with jitter", 0, func(t *testing.T, d *toxicsDump) {
		t.Helper()
		for _, direction := range []string{toReceiver, toSender} {
			d.line.toxic(t, "latency", direction, `{"latency": 200, "jitter": 100}`)
		}
	}},
	{"1 MB/s", 0, func(t *testing.T, d *toxicsDump) {
		t.Helper()
		d.line.cure(t, "bandwidth-"+toReceiver)
		d.line.slow(t, 1000)
	}},
	{"slow close", 0, func(t *testing.T, d *toxicsDump) {
		t.Helper()
		for _, direction := range []string{toReceiver, toSender} {
			d.line.toxic(t, "slow_close", direction, `{"delay": 5000}`)
		}
		// The sender hangs up and comes back; the receiver hears of the first 5 s later.
		for _, percent := range []uint64{30, 60} {
			d.await(t, percent)
			_ = (*d.conn.Load()).Close() // an end of it is all that is wanted
		}
	}},
}

// toxicsSure is the part of a dump, in per cent, that cannot become durable at once with all that follows. On a busy
// machine what comes after it may be through before anybody has looked.
const toxicsSure = 60

// toxicsInFlight is how many pages may be durable whose acks are on their way.
const toxicsInFlight = 1 << 13

// toxicsManyCuts cuts the line again and again, so that many connections are made.
func toxicsManyCuts(t *testing.T, d *toxicsDump) {
	t.Helper()
	for percent := uint64(8); percent < 100; percent += 8 {
		d.await(t, percent)
		d.line.cut(t)
	}
}

// TestToxics sends dumps over lines that fail in many ways. All of them complete, and neither
// side leaves a goroutine or a file descriptor behind.
func TestToxics(t *testing.T) {
	c, err := lab.CaptureELF(t.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", Kexec: "c"})
	if err != nil {
		t.Fatal(err)
	}
	calm := judgesServe(t)
	want := judgesPages(t, filepath.Join(calm.send(t, c.ELF, "31"), "vmcore"))
	l := newLine(t, calm.address(t)) // the runtime's own descriptors are there from now on
	l.Stop()
	goroutines, files := goleak.IgnoreCurrent(), toxicsFiles(t)
	var all sync.WaitGroup // not t.Parallel: they wait for lines rather than for CPUs
	for _, f := range toxicsFaults {
		all.Go(func() {
			t.Run(f.name, func(t *testing.T) {
				d := toxicsStart(t, c.ELF, f.refuse)
				f.fault(t, d)
				d.complete(t, want)
			})
		})
	}
	all.Wait()
	// toxiproxy 2.5 itself leaves goroutines when a connection ends while a toxic holds data of it.
	const theirs = "github.com/Shopify/toxiproxy/v2"
	if err := goleak.Find(goroutines, goleak.IgnoreAnyFunction(theirs+"/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction(theirs+".(*ToxicLink).read"), goleak.IgnoreAnyFunction(theirs+".(*ToxicLink).write")); err != nil {
		t.Errorf("goroutines are left: %v", err)
	}
	for _, f := range toxicsFiles(t) {
		if !slices.Contains(files, f) {
			t.Errorf("left open: %s", f)
		}
	}
}

// complete waits for the end of the dump and compares it with one that nobody disturbed.
func (d *toxicsDump) complete(t *testing.T, want lab.Pages) {
	t.Helper()
	<-d.done
	p := d.meter.Progress()
	t.Logf("%s, %d connections, %d of them refused, %.1f MB, %v", p.State, d.dialed.Load(), d.refused.Load(),
		float64(p.BytesSent)/1e6, p.Elapsed.Round(time.Millisecond))
	one := (&judgesStore{data: d.data}).one(t)
	if one.Manifest.State != "complete" {
		t.Fatalf("state %q, want complete", one.Manifest.State)
	}
	judgesRun(t, 0, "corehaul", "verify", "--data", d.data, one.ID)
	if got := judgesPages(t, filepath.Join(one.Path, "vmcore")); got != want {
		t.Errorf("pages: %+v, undisturbed %+v", got, want)
	}
}

// toxicsFiles are the open descriptors of this process: number and what it is.
func toxicsFiles(t *testing.T) (files []string) {
	t.Helper()
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// ReadDir's own is gone by now.
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			files = append(files, e.Name()+" "+to)
		}
	}
	return files
}

// toxicsStart starts a receiver and a sender with a line between them.
func toxicsStart(t *testing.T, elf string, refuse float64) *toxicsDump {
	t.Helper()
	dir := t.TempDir()
	d := &toxicsDump{data: filepath.Join(dir, "data"), meter: new(sender.Meter), done: make(chan struct{}), refuse: refuse}
	ca := filepath.Join(dir, "ca")
	if _, err := corehaultls.InitCA(ca); err != nil {
		t.Fatal(err)
	}
	d.line = newLine(t, toxicsReceive(t, d.data, ca))
	d.line.slow(t, toxicsRate)
	d.line.readyToReset(t)
	pem, err := corehaultls.IssueHost(ca, "web-17")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "identity.pem")
	if err := corehaultls.WriteIdentity(file, pem); err != nil {
		t.Fatal(err)
	}
	id, err := corehaultls.LoadIdentity(file)
	if err != nil {
		t.Fatal(err)
	}
	src, err := sender.Open(elf)
	if err != nil {
		t.Fatal(err)
	}
	dial := d.dialer(sender.DialTLS(corehaultls.ClientConfig(id), nil))
	var sendErr error
	go func() {
		defer close(d.done)
		_, sendErr = sender.Send(t.Context(), src, sender.Options{
			To: []string{d.line.target()}, Dial: dial, Level: pages.DumpLevel(31), Patience: 2 * time.Minute, Workers: 2, Meter: d.meter,
		})
	}()
	t.Cleanup(func() {
		<-d.done
		if err := errors.Join(sendErr, src.Close()); err != nil {
			t.Errorf("the sender: %v", err)
		}
	})
	return d
}

// dialer refuses its part of the connections: those go to a port where nobody listens.
func (d *toxicsDump) dialer(dial sender.Dialer) sender.Dialer {
	return func(ctx context.Context, target string) (net.Conn, error) {
		d.dialed.Add(1)
		if rand.Float64() < d.refuse {
			c, err := dial(ctx, "tls://127.0.0.1:1")
			if errors.Is(err, syscall.ECONNREFUSED) {
				d.refused.Add(1)
			}
			return c, err
		}
		c, err := dial(ctx, target)
		if err == nil {
			d.conn.Store(&c)
		}
		return c, err
	}
}

// await waits until so many per cent of the pages are durable.
func (d *toxicsDump) await(t *testing.T, percent uint64) {
	t.Helper()
	for {
		p := d.meter.Progress()
		if p.Planned > 0 && p.Pages*100 >= p.Planned*percent {
			return
		}
		select {
		case <-d.done:
			if percent <= toxicsSure {
				t.Errorf("the dump was over at %d of %d pages, before %d %%", p.Pages, p.Planned, percent)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// toxicsReceive runs a receiver until the test ends and returns its address.
func toxicsReceive(t *testing.T, data, ca string) string {
	t.Helper()
	store, err := local.Open(t.Context(), data, storage.OpenOptions{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	log := new(strings.Builder)
	server, err := receiver.New(receiver.Config{
		Store: store, Memory: receiver.MinMemory, IdleTimeout: 10 * time.Second,
		Log: slog.New(slog.NewTextHandler(log, nil)), // it locks its writer
	})
	if err != nil {
		t.Fatal(err)
	}
	ofCA, err := corehaultls.ServerConfig(ca)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := receiver.NewTLSConfig(ofCA)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// The context of the test ends before its cleanups.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 2)
	go func() { ended <- server.Run(ctx) }()
	go func() { ended <- server.ServeTLS(ctx, listener, conf) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended, store.Close()); err != nil {
			t.Errorf("the receiver: %v", err)
		}
		if t.Failed() {
			t.Logf("the receiver's log:\n%s", log)
		}
	})
	return listener.Addr().String()
}

// readyToReset makes a line that can be reset in the middle of a connection: toxiproxy decides
// when a connection begins whether its end is to be a RST.
func (l *line) readyToReset(tb testing.TB) {
	tb.Helper()
	l.toxic(tb, "reset_peer", toReceiver, `{"timeout": 0}`)
	l.resetNow(tb, false)
}

// reset ends the connection with a RST.
func (d *toxicsDump) reset(t *testing.T) {
	t.Helper()
	before := d.dialed.Load()
	d.line.resetNow(t, true)
	for d.dialed.Load() == before { // it happens to the next data
		select {
		case <-d.done:
			t.Fatal("the dump was over before the reset")
		case <-time.After(20 * time.Millisecond):
		}
	}
	d.line.resetNow(t, false)
}

func (l *line) resetNow(tb testing.TB, on bool) {
	tb.Helper()
	toxicity := 0
	if on {
		toxicity = 1
	}
	text := fmt.Sprintf(`{"toxicity": %d, "attributes": {"timeout": 0}}`, toxicity)
	if _, err := l.Toxics.UpdateToxicJson("reset_peer-"+toReceiver, strings.NewReader(text)); err != nil {
		tb.Fatal(err)
	}
}
