package e2e

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender"
	corehaultls "github.com/corehaul/corehaul/tls"
)

const (
	// killsEach is how often each side is killed in one dump.
	killsEach = 20
	// killRate is the speed of the line in kB/s: slow enough that all kills fit into the dump.
	killRate = 10_000
	// killLast is the latest instant, as a part of the dump: what comes after it takes longer
	// than killDelay, so that the dump is not over before the last kill.
	killLast = 0.9
	// killDelay is the longest time from an instant to its kill. It lets kills that are
	// close to each other fall at any place in the recovery from the one before.
	killDelay = 200 * time.Millisecond
	// killSeedVar is the environment variable that repeats a run.
	killSeedVar = "COREHAUL_KILL_SEED"
)

// killDump is one dump that is disturbed.
type killDump struct {
	store   *judgesStore
	line    *line
	args    []string
	sender  *serveSender
	written uint64 // by the senders that were killed
}

// TestKill kills the sender and the receiver with SIGKILL at random instants of one dump, and
// compares what comes out, and what it took, with a dump that nobody disturbed.
func TestKill(t *testing.T) {
	seed := killSeed(t)
	c, err := lab.CaptureELF(t.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", Kexec: "c"})
	if err != nil {
		t.Fatal(err)
	}
	flags := []string{"--memory", "32MiB"} // a small window: what one kill may cost
	window, greeting := killPrices(t, c.ELF, flags)
	calm := judgesServe(t, flags...)
	args := []string{"--level", "1", "--encoding", "snappy", "--workers", "2", c.ELF}
	code, undisturbed := serveSend(t, nil, append([]string{"--to", calm.target, "--identity", calm.identity}, args...)...).wait(t)
	if code != 0 {
		t.Fatalf("the undisturbed sender: exit code %d", code)
	}
	judgesSealed(t, calm.one(t).Path)
	want := filepath.Join(calm.one(t).Path, "vmcore")
	fi, err := os.Stat(want)
	if err != nil {
		t.Fatal(err)
	}

	s := judgesServe(t, flags...)
	l := newLine(t, s.address(t))
	l.slow(t, killRate)
	d := &killDump{store: s, line: l, args: append([]string{"--to", l.target(), "--identity", s.identity}, args...)}
	d.sender = serveSend(t, nil, d.args...)
	d.disturb(t, rand.New(rand.NewPCG(seed, 0)), fi.Size())
	code, last := d.sender.wait(t)
	if code != 0 {
		t.Fatalf("the last sender: exit code %d\n%s", code, d.sender.said())
	}
	d.compare(t, want)
	sent := d.written + last
	kills := uint64(2 * killsEach)
	t.Logf("%d bytes undisturbed, %d with %d kills in %d sessions: %d more for each kill; a window is %d, a greeting %d",
		undisturbed, sent, kills, strings.Count(s.said(t), `msg="session began"`), (sent-undisturbed)/kills, window, greeting)
	if most := undisturbed + kills*(window+greeting); sent > most {
		t.Errorf("%d bytes were sent, want at most %d", sent, most)
	}
}

func killSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(killSeedVar); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", killSeedVar, err)
		}
	}
	t.Logf("%s=%d repeats the instants", killSeedVar, seed)
	return seed
}

// disturb kills each side killsEach times, spread over the dump. size is that of the whole vmcore.
func (d *killDump) disturb(t *testing.T, rnd *rand.Rand, size int64) {
	t.Helper()
	instants := make([]float64, 2*killsEach)
	for i := range instants {
		instants[i] = rnd.Float64() * killLast
	}
	slices.Sort(instants)
	for i, n := range rnd.Perm(len(instants)) {
		bytes := int64(instants[i] * float64(size))
		for d.arrived(t) < bytes {
			select {
			case <-d.sender.closed:
				t.Fatalf("the sender ended before kill %d:\n%s", i+1, d.sender.said())
			case <-time.After(20 * time.Millisecond):
			}
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(killDelay))))
		if n < killsEach {
			d.written += d.sender.kill(t)
			d.sender = serveSend(t, nil, d.args...)
			continue
		}
		d.store.kill(t)
		d.store.start(t)
	}
}

// arrived is the length of the vmcore so far.
func (d *killDump) arrived(t *testing.T) int64 {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(d.store.data, "dumps", "*", "*", "vmcore-incomplete"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		return 0
	}
	fi, err := os.Stat(names[0])
	if err != nil {
		return 0 // it has been sealed since, or its plan is being stored
	}
	return fi.Size()
}

// compare holds the disturbed dump against the one that was not, page for page.
func (d *killDump) compare(t *testing.T, want string) {
	t.Helper()
	judgesSealed(t, d.store.one(t).Path)
	one := d.store.one(t)
	if one.Manifest.State != "complete" {
		t.Errorf("state %q, want complete", one.Manifest.State)
	}
	judgesRun(t, 0, "corehaul", "verify", "--data", d.store.data, one.ID)
	if got, want := judgesPages(t, filepath.Join(one.Path, "vmcore")), judgesPages(t, want); got != want {
		t.Errorf("pages: %+v, undisturbed %+v", got, want)
	}
}

// killPrices asks a receiver with these flags what one interruption may cost: the window that it
// gives, with what frames and TLS add to it, and the bytes that a connection takes without
// any page.
func killPrices(t *testing.T, elf string, flags []string) (window, greeting uint64) {
	t.Helper()
	s := judgesServe(t, flags...)
	src, err := sender.Open(elf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }() // only read
	id, err := corehaultls.LoadIdentity(s.identity)
	if err != nil {
		t.Fatal(err)
	}
	dial := sender.DialTLS(corehaultls.ClientConfig(id), nil)
	var heard *killEar
	if _, err := sender.Send(t.Context(), src, sender.Options{
		To: []string{s.target}, LogOnly: true,
		Dial: func(ctx context.Context, target string) (net.Conn, error) {
			c, err := dial(ctx, target)
			heard = &killEar{Conn: c}
			return heard, err
		},
	}); err != nil {
		t.Fatal(err)
	}
	judgesRun(t, 0, "corehaul", "rm", "--data", s.data, s.one(t).ID)
	code, greeting := serveSend(t, nil, "--to", s.target, "--identity", s.identity, "--log-only", elf).wait(t)
	if code != 0 {
		t.Fatalf("a sender of the log: exit code %d", code)
	}
	const (
		framesAndTLS = 100      // one in so many bytes
		planAndPings = 64 << 10 // what a session has beside; the plan is sent until it is stored
	)
	window = heard.window(t)
	return window + window/framesAndTLS, greeting + planAndPings
}

// killEar keeps what comes in.
type killEar struct {
	net.Conn
	got []byte
}

func (e *killEar) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	e.got = append(e.got, b[:n]...)
	return n, err
}

// window is that of the WELCOME (protocol/PROTOCOL.md).
func (e *killEar) window(t *testing.T) uint64 {
	t.Helper()
	for b := e.got; len(b) >= partialFrameHead; {
		end := partialFrameHead + int(binary.LittleEndian.Uint32(b[4:]))
		if protocol.Type(b[2]) != protocol.TypeWelcome {
			b = b[end:]
			continue
		}
		var welcome struct {
			WindowBytes uint64 `json:"window_bytes"`
		}
		if err := json.Unmarshal(b[partialFrameHead:end], &welcome); err != nil || welcome.WindowBytes == 0 {
			t.Fatalf("no window in %s: %v", b[partialFrameHead:end], err)
		}
		return welcome.WindowBytes
	}
	t.Fatal("the receiver sent no WELCOME")
	return 0
}
