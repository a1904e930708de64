package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// partialConn lets so many chunks of a sender through, and then not a byte more until it
// is closed: as seen by the receiver, a machine that died between two chunks.
type partialConn struct {
	net.Conn
	chunks uint64 // still to pass
	head   []byte // of the frame that begins, as far as it came
	body   int    // bytes of the frame that are still to come
	once   sync.Once
	closed chan struct{}
}

// partialFrameHead is the length of a frame's header on the wire (protocol/PROTOCOL.md).
const partialFrameHead = 12

// Write passes b on, up to the end of the last chunk that may pass.
func (c *partialConn) Write(b []byte) (int, error) {
	n, stop := c.allowed(b)
	if n > 0 {
		if n, err := c.Conn.Write(b[:n]); err != nil {
			return n, err
		}
	}
	if !stop {
		return len(b), nil
	}
	<-c.closed
	return n, net.ErrClosed
}

// allowed follows the frames in b and returns how much of it may pass. Headers that are cut
// in two may pass up to their cut: the receiver does nothing with half a header.
func (c *partialConn) allowed(b []byte) (n int, stop bool) {
	for n < len(b) {
		if c.body > 0 {
			step := min(c.body, len(b)-n)
			c.body, n = c.body-step, n+step
			continue
		}
		start, step := n, min(partialFrameHead-len(c.head), len(b)-n)
		c.head, n = append(c.head, b[n:n+step]...), n+step
		if len(c.head) < partialFrameHead {
			return n, false
		}
		if protocol.Type(c.head[2]) == protocol.TypeChunk {
			if c.chunks == 0 {
				return start, true
			}
			c.chunks--
		}
		c.body, c.head = int(binary.LittleEndian.Uint32(c.head[4:])), c.head[:0]
	}
	return n, false
}

// Close ends a Write that waits.
func (c *partialConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// partialDump is a dump of which a part has arrived.
type partialDump struct {
	store *judgesStore
	dir   string
	pages uint64 // that arrived
	first uint64 // pages of the tiers that everybody needs
	all   uint64 // pages of the plan
	cut   func() // ends the sender
}

// partialSend sends at level 1 and holds its breath after a part of the chunks, which are
// then durable.
func partialSend(t *testing.T, elf string, chunks func(*protocol.PlanSum) uint64) *partialDump {
	t.Helper()
	// crash looks at the dump while the sender is silent, and takes its time beside other tests.
	s := judgesServe(t, "--resume-grace", "1s", "--idle-timeout", "20m")
	src, err := sender.Open(elf)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := src.Plan(t.Context(), pages.DumpLevel(1))
	if err != nil {
		t.Fatal(err)
	}
	id, err := corehaultls.LoadIdentity(s.identity)
	if err != nil {
		t.Fatal(err)
	}
	n := chunks(&plan.Sum)
	meter := new(sender.Meter)
	dial := sender.DialTLS(corehaultls.ClientConfig(id), nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = sender.Send(ctx, src, sender.Options{
			To: []string{s.target}, Level: pages.DumpLevel(1), Workers: 1, Meter: meter,
			Dial: func(ctx context.Context, target string) (net.Conn, error) {
				c, err := dial(ctx, target)
				if err != nil {
					return nil, err
				}
				return &partialConn{Conn: c, chunks: n, closed: make(chan struct{})}, nil
			},
		})
	}()
	d := &partialDump{
		store: s, first: plan.Sum.Pages[partialLogTier] + plan.Sum.Pages[partialKernelTier], all: plan.Sum.Kept,
		pages: partialPages(plan, n),
	}
	d.cut = sync.OnceFunc(func() {
		cancel()
		<-ended
		_ = src.Close()
	})
	t.Cleanup(d.cut)
	serveWait(t, "the chunks to be durable", func() bool { return meter.Progress().Pages == d.pages })
	d.dir = s.dir(t)
	return d
}

// The tiers of the kernel's own memory: the log and what leads to it, and all the rest.
const (
	partialLogTier    = 0
	partialKernelTier = 1
)

// partialPages counts the pages of a plan's first n chunks.
func partialPages(plan *sender.Plan, n uint64) (pages uint64) {
	for tier := range protocol.MaxTiers {
		chunks := plan.Sum.TierChunks(tier)
		if n < chunks {
			return pages + n*uint64(protocol.ChunkPages(plan.Params.PageSize))
		}
		pages += plan.Sum.Pages[tier]
		n -= chunks
	}
	return pages
}

// seal kills the sender and waits until the receiver gives it up.
func (d *partialDump) seal(t *testing.T) string {
	t.Helper()
	d.cut()
	serveWait(t, "the seal", func() bool { return judgesReadManifest(t, d.dir).State == "partial" })
	return filepath.Join(d.dir, "vmcore")
}

// partialFirst is all of the kernel's own memory and nothing else.
func partialFirst(sum *protocol.PlanSum) uint64 {
	return sum.TierChunks(partialLogTier) + sum.TierChunks(partialKernelTier)
}

// partialOf is a share of it, in per cent.
func partialOf(percent uint64) func(*protocol.PlanSum) uint64 {
	return func(sum *protocol.PlanSum) uint64 { return partialFirst(sum) * percent / 100 }
}

// TestPartialOpens cuts dumps where crash has to be able to work with them, while they
// arrive and when they are sealed.
func TestPartialOpens(t *testing.T) {
	t.Parallel()
	threeQuarters := func(sum *protocol.PlanSum) uint64 { return sum.Chunks() * 3 / 4 }
	for _, tt := range []struct {
		kernel, cut string
		chunks      func(*protocol.PlanSum) uint64
	}{
		{"6.1", "after the kernel tier", partialFirst},
		{"6.1", "at 75 % of the plan", threeQuarters},
		{"5.10", "after the kernel tier", partialFirst},
		{"6.12", "after the kernel tier", partialFirst},
	} {
		t.Run(tt.kernel+" "+tt.cut, func(t *testing.T) {
			t.Parallel()
			commands := []string{"sys", "log", "bt -a", "ps"}
			c, k, vmlinux := judgesCapture(t, tt.kernel)
			want := judgesCrashOriginal(t, c, commands...)
			d := partialSend(t, c.ELF, tt.chunks)
			judgesSame(t, judgesCrash(t, vmlinux, filepath.Join(d.dir, "vmcore-incomplete"), commands...), want)
			vmcore := d.seal(t)
			judgesSame(t, judgesCrash(t, vmlinux, vmcore, commands...), want)
			d.judge(t, k, vmcore)
		})
	}
}

// TestPartialEarly cuts so early that crash may well refuse. The file is valid for all that,
// and so is the log that came before it. What the others said is in the test's log.
func TestPartialEarly(t *testing.T) {
	t.Parallel()
	c, k, vmlinux := judgesCapture(t, "6.1")
	for _, percent := range []uint64{5, 25, 50} {
		t.Run(fmt.Sprintf("%d %% of the kernel's tiers", percent), func(t *testing.T) {
			d := partialSend(t, c.ELF, partialOf(percent))
			vmcore := d.seal(t)
			d.judge(t, k, vmcore)
			out, err := lab.CrashEach(t.Context(), vmlinux, vmcore, "log")
			t.Logf("crash opens it: %t, %d bytes of log: %s", err == nil, len(out["log"]), partialLast(fmt.Sprint(err)))
		})
	}
}

// judge checks what holds for a sealed partial dump wherever it was cut, and logs the rest.
func (d *partialDump) judge(t *testing.T, k *lab.Kernel, vmcore string) {
	t.Helper()
	id := judgesReadManifest(t, d.dir).ID
	judgesRun(t, 3, "corehaul", "verify", "--data", d.store.data, id)
	if got := judgesPages(t, vmcore).Count; uint64(got) != d.pages {
		t.Errorf("libkdumpfile reads %d pages, %d arrived", got, d.pages)
	}
	t.Logf("%d of %d pages, %d are essential", d.pages, d.all, d.first)
	log, _ := judgesRun(t, 0, "corehaul", "log", "--data", d.store.data, id)
	if !strings.Contains(log, "Kernel panic") {
		t.Errorf("the log that was sent first has no panic:\n%.200s", log)
	}
	d.makedumpfile(t, k, vmcore)
	d.ownLog(t, vmcore)
}

// makedumpfile is asked for the log, which it must find wherever the dump was cut, and to filter
// the dump, which takes more.
func (d *partialDump) makedumpfile(t *testing.T, k *lab.Kernel, vmcore string) {
	t.Helper()
	zlib := partialDmesg(t, k, vmcore)
	text, err := k.Makedumpfile(t.Context(), "-c", "-d", "31", zlib, zlib+"-again")
	t.Logf("makedumpfile -d 31 works: %t: %s", err == nil, partialLast(text))
}

// partialDmesg has makedumpfile write the log of a copy with zlib, whose path it returns: Debian builds
// makedumpfile without snappy.
func partialDmesg(t *testing.T, k *lab.Kernel, vmcore string) (zlib string) {
	t.Helper()
	zlib = filepath.Join(t.TempDir(), "zlib")
	if code, _, errOut := partialExit(t, "export", "--format", "kdump", "--compress", "zlib", "-o", zlib, vmcore); code != 0 && code != 3 {
		t.Fatalf("export: exit code %d: %s", code, errOut)
	}
	if text, err := k.Makedumpfile(t.Context(), "--dump-dmesg", zlib, zlib+"-dmesg"); err != nil {
		t.Errorf("makedumpfile finds no log: %v: %s", err, partialLast(text))
	}
	return zlib
}

// ownLog has our own reader look for the log in the memory that is there: it must find all of it
// from the end of the log tier on.
func (d *partialDump) ownLog(t *testing.T, vmcore string) {
	t.Helper()
	bare := filepath.Join(t.TempDir(), "vmcore") // away from the text that was sent
	if err := os.Link(vmcore, bare); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := partialExit(t, "log", bare)
	switch {
	case code == 0 && !strings.Contains(out, "Kernel panic"):
		t.Errorf("a log without the panic:\n%.200s", out)
	case code != 0:
		t.Errorf("the log tier is there, and the log is not: %s", errOut)
	}
	t.Logf("corehaul log FILE: exit code %d, %d bytes, %s", code, len(out), partialLast(errOut))
}

// partialExit runs corehaul and returns its exit code, whatever it is.
func partialExit(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut strings.Builder
	cmd := exec.CommandContext(t.Context(), judgesBin+"corehaul", args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// partialLast is the end of a text: programs say last what stopped them.
func partialLast(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	return text[max(0, len(text)-300):]
}
