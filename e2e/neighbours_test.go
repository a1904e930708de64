package e2e

import (
	"context"
	cryptotls "crypto/tls"
	"encoding/binary"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	corehaultls "github.com/corehaul/corehaul/tls"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

const (
	neighbours = 64
	// neighboursWhole is how many of them send the dump of a machine, twice what the receiver takes at a time. The others send a
	// few pages.
	neighboursWhole     = 16
	neighboursMemMiB    = 256 // memory of the receiver: --memory and the limit of its peak RSS
	neighboursHostMiB   = 64  // limit of one host
	neighboursHostDumps = 100
	// neighboursSlackMiB is what one host may use beyond its limit: the last log and the fronts of files.
	neighboursSlackMiB = 80
)

// attacker is a host that attacks the receiver with its identity, with its SSH key, and from its own addresses.
type attacker struct {
	s      *sshServeStore
	id     *corehaultls.Identity
	client *stockClient
	ended  context.Context
	wg     sync.WaitGroup
	next   atomic.Uint64
	tries  sync.Map // number of attacks by name: *atomic.Int64
}

// attack starts all attacks at once. stop ends them.
func attack(tb testing.TB, s *sshServeStore, host string) (a *attacker, stop func()) {
	tb.Helper()
	id, err := corehaultls.LoadIdentity(s.issue(tb, host))
	if err != nil {
		tb.Fatal(err)
	}
	a = &attacker{s: s, id: id, client: s.client(tb, host)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	a.ended = ctx
	a.repeat("hello for ever", 16, a.helloForEver)
	a.repeat("silence", 4*300, a.silence) // the receiver has places for 384 of these
	a.repeat("logs", 4, a.bigLog)
	a.repeat("a plan at the end of memory", 2, a.highPlan)
	a.repeat("a length, then its hole", 2, func() { a.hole(a.next.Add(1)) })
	a.repeat("a core that grows", 2, func() { a.bomb(a.next.Add(1)) })
	return a, sync.OnceFunc(func() { cancel(); a.wg.Wait() })
}

// repeat starts n workers that repeat one attack until stop.
func (a *attacker) repeat(name string, n int, once func()) {
	count := new(atomic.Int64)
	a.tries.Store(name, count)
	for range n {
		a.wg.Go(func() {
			for a.ended.Err() == nil {
				once()
				count.Add(1)
				select { // the attack, the receiver and 64 senders share two cores
				case <-a.ended.Done():
				case <-time.After(time.Second):
				}
			}
		})
	}
}

// dial opens a session and sends HELLO. The returned function closes it.
func (a *attacker) dial(maxPFN mem.PFN) (*protocol.Conn, func()) {
	d := cryptotls.Dialer{Config: corehaultls.ClientConfig(a.id)}
	raw, err := d.DialContext(a.ended, "tcp", strings.TrimPrefix(a.s.target, "tls://"))
	if err != nil {
		return nil, nil
	}
	closed := context.AfterFunc(a.ended, func() { _ = raw.Close() })
	conn := protocol.NewConn(raw, protocol.Sender)
	err = conn.Write(&protocol.Hello{
		DumpID: fmt.Sprintf("%032x", a.next.Add(1)), Tool: "attack", Machine: "x86_64", PageSize: 4096, MaxPFN: maxPFN, RAMBytes: 4096,
		NrCPUs: 1, Encodings: protocol.Encodings{protocol.EncodingSnappyPage},
	})
	if err != nil {
		_ = raw.Close()
		return nil, nil
	}
	return conn, func() { closed(); _ = raw.Close() }
}

// helloForEver sends as many notes as the receiver accepts, then only heartbeats.
func (a *attacker) helloForEver() {
	conn, end := a.dial(1)
	if conn == nil {
		return
	}
	defer end()
	notes := make([]byte, 512<<10)
	for range 15 {
		if conn.WriteNotes(notes) != nil {
			break
		}
	}
	go func() { _ = conn.KeepAlive(a.ended, protocol.KeepAlive{Heartbeat: time.Second}) }()
	for {
		if _, err := conn.Read(); err != nil {
			return
		}
	}
}

// silence connects from one of four addresses and sends nothing.
func (a *attacker) silence() {
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+a.next.Add(1)%4))}
	conn, err := (&net.Dialer{LocalAddr: from}).DialContext(a.ended, "tcp", strings.TrimPrefix(a.s.target, "tls://"))
	if err != nil {
		return
	}
	defer context.AfterFunc(a.ended, func() { _ = conn.Close() })()
	_, _ = conn.Read(make([]byte, 1)) // until the receiver closes it
	_ = conn.Close()
}

// hello sends the messages after HELLO: RAM and a log of logBytes.
func (a *attacker) hello(conn *protocol.Conn, ram mem.Range, logBytes int) error {
	if err := conn.WriteRAM([]mem.Range{ram}); err != nil {
		return err
	}
	log := conn.NewLogWriter()
	piece := []byte(strings.Repeat("[    1.000000] attack\n", 4096))
	for ; logBytes > 0; logBytes -= len(piece) {
		if _, err := log.Write(piece[:min(len(piece), logBytes)]); err != nil {
			return err
		}
	}
	return log.Close("")
}

// bigLog sends a log of almost the maximum size under a new dump id.
func (a *attacker) bigLog() {
	conn, end := a.dial(1)
	if conn == nil {
		return
	}
	defer end()
	if a.hello(conn, mem.Range{End: 4096}, 63<<20) == nil {
		_, _ = conn.Read()
	}
}

// highPlan sends a plan of one page at the end of 256 TiB.
func (a *attacker) highPlan() {
	const last = 1<<36 - 1
	conn, end := a.dial(last + 1)
	if conn == nil {
		return
	}
	defer end()
	if a.hello(conn, mem.Range{Start: last << 12, End: (last + 1) << 12}, 100) != nil {
		return
	}
	for {
		m, err := conn.Read()
		if err != nil {
			return
		}
		if _, ok := m.(*protocol.Welcome); ok {
			break
		}
	}
	enc := protocol.NewRunEncoder(protocol.Params{PageSize: 4096, MaxPFN: last + 1}, func(piece []byte) error { return conn.Write(&protocol.Plan{Data: piece}) })
	if enc.Add(protocol.Run{Extent: mem.Extent{Start: last, Count: 1}}) != nil {
		return
	}
	sum, err := enc.Close()
	if err != nil {
		return
	}
	_ = conn.Write(&protocol.PlanEnd{
		Hash: sum.Hash, Runs: sum.Runs, Kept: sum.Kept, Chunks: sum.Chunks(), Codec: protocol.EncodingSnappyPage,
		Pages: protocol.PageCounts{Total: 1, Kept: 1}, Tiers: []protocol.Tier{{Name: "kernel", Pages: 1, Chunks: 1}},
	})
	_ = conn.Write(&protocol.Finish{Reason: protocol.ReasonDeadline})
	for {
		if _, err := conn.Read(); err != nil {
			return
		}
	}
}

// hole sets the length of a file over SFTP, then writes all its bytes.
func (a *attacker) hole(n uint64) {
	argv := a.client.argv("ssh", "-s", a.client.host, "sftp")
	cmd := exec.CommandContext(a.ended, argv[0], argv[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return
	}
	out, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		return
	}
	defer func() { _ = cmd.Wait() }() // any result will do
	c, err := sftp.NewClientPipe(out, in)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	f, err := c.Create(fmt.Sprintf("/hole-%d/notes", n%4))
	if err != nil {
		return
	}
	_ = f.Truncate(200 << 20)
	piece := make([]byte, 256<<10)
	for off := int64(0); err == nil && off < 200<<20; off += int64(len(piece)) {
		_, err = f.WriteAt(piece, off)
	}
	_ = f.Close()
}

// bomb sends an ELF core in which 256 PT_LOADs share one MiB of the file.
func (a *attacker) bomb(n uint64) {
	const loads, size, page = 256, 1 << 20, 4096
	const header, phdr = 64, 56
	b := make([]byte, header+loads*phdr)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], 4)  // ET_CORE
	binary.LittleEndian.PutUint16(b[18:], 62) // x86_64
	binary.LittleEndian.PutUint32(b[20:], 1)
	binary.LittleEndian.PutUint64(b[32:], header)
	binary.LittleEndian.PutUint16(b[52:], header)
	binary.LittleEndian.PutUint16(b[54:], phdr)
	binary.LittleEndian.PutUint16(b[56:], loads)
	start := uint64((len(b) + page - 1) / page * page)
	for i := range uint64(loads) {
		p := b[header+i*phdr:]
		binary.LittleEndian.PutUint32(p, 1) // PT_LOAD
		binary.LittleEndian.PutUint64(p[8:], start)
		binary.LittleEndian.PutUint64(p[24:], i*size) // p_paddr
		binary.LittleEndian.PutUint64(p[32:], size)
		binary.LittleEndian.PutUint64(p[40:], size)
	}
	b = append(b, make([]byte, int(start)-len(b)+size)...)
	for i := int(start); i < len(b); i++ {
		b[i] = byte(i * i >> 7)
	}
	argv := a.client.argv("ssh", a.client.host, fmt.Sprintf("cat > /bomb-%d/vmcore", n))
	cmd := exec.CommandContext(a.ended, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(string(b))
	_ = cmd.Run() // any result will do
}

// diskMiB returns the disk space that the files below dirs use, without holes.
func diskMiB(tb testing.TB, dirs ...string) (sum int64) {
	tb.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // removed meanwhile, or not created yet
			}
			if info, err := d.Info(); err == nil {
				sum += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return sum >> 20
}

// neighboursRun runs 64 senders at once, with or without an attack. It returns the longest time until the log of a sender was durable.
func neighboursRun(tb testing.TB, attacked bool) (slowest time.Duration) {
	tb.Helper()
	c, err := lab.CaptureELF(tb.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", MemMiB: 448, Kexec: "c"})
	if err != nil {
		tb.Fatal(err)
	}
	small := filepath.Join(judgesServe(tb).send(tb, c.ELF, "31"), "vmcore")
	s := sshServe(tb, "--memory", fmt.Sprintf("%dMiB", neighboursMemMiB), "--max-host-bytes", fmt.Sprintf("%dMiB", neighboursHostMiB),
		"--max-host-dumps", fmt.Sprint(neighboursHostDumps), "--max-host-sessions", "2")
	const evil = "web-18" // it has a key, too
	if attacked {
		a, stop := attack(tb, s, evil)
		defer stop()
		serveWait(tb, "each way of attack", a.triedAll)
	}
	dir, few := tb.TempDir(), stockFile(tb, "few", string(vmcoretest.Sample(tb, mutMade+"-zlib.kdump")))
	dumps := slices.Concat(slices.Repeat([]string{small}, neighboursWhole), slices.Repeat([]string{few}, neighbours-neighboursWhole))
	senders := s.crashFleet(tb, s.target, dumps, dir, 0)
	for i, p := range senders {
		if code, _ := p.wait(tb); code != 0 {
			tb.Fatalf("sender %d: exit code %d\n%s", i, code, p.said())
		}
	}
	for _, d := range s.list(tb) {
		if d.Host == evil {
			continue
		}
		st, err := os.Stat(filepath.Join(d.Path, "vmcore-dmesg.txt"))
		if err != nil || d.Manifest.State != "complete" {
			tb.Fatalf("%s is %s (%s), %v", d.Host, d.Manifest.State, d.Manifest.Reason, err)
		}
		slowest = max(slowest, st.ModTime().Sub(d.Manifest.StartTime))
	}
	s.checkAttacker(tb, evil)
	return slowest
}

// triedAll reports whether each attack was made once. The receiver holds "hello for ever", so that one never ends.
func (a *attacker) triedAll() bool {
	all := true
	a.tries.Range(func(name, count any) bool {
		all = all && (count.(*atomic.Int64).Load() > 0 || name == "hello for ever")
		return true
	})
	return all
}

// checkAttacker checks that a host stays within its limits, and the receiver within its memory.
func (s *sshServeStore) checkAttacker(tb testing.TB, host string) {
	tb.Helper()
	if peak := serveProc(tb, s.cmd.Process.Pid, "status", "VmHWM:") >> 10; peak > neighboursMemMiB {
		tb.Errorf("peak RSS %d MiB, want at most %d", peak, neighboursMemMiB)
	}
	disk := diskMiB(tb, filepath.Join(s.data, "dumps", host), filepath.Join(s.data, "stock", host))
	if disk > neighboursHostMiB+neighboursSlackMiB {
		tb.Errorf("%s has %d MiB on the disk, want at most %d", host, disk, neighboursHostMiB+neighboursSlackMiB)
	}
	dumps := slices.DeleteFunc(s.list(tb), func(d serveDump) bool { return d.Host != host })
	if len(dumps) > neighboursHostDumps {
		tb.Errorf("%s has %d dumps, want at most %d", host, len(dumps), neighboursHostDumps)
	}
	tb.Logf("the attacker has %d MiB on the disk in %d dumps", disk, len(dumps))
}

// TestNeighbours runs all attacks of one host at once while 64 machines send their dumps. All of these dumps complete.
func TestNeighbours(t *testing.T) {
	slowest := neighboursRun(t, true)
	t.Logf("the slowest log was durable %v after its hello", slowest)
}

// BenchmarkNeighbours measures the time until the slowest log of 64 machines is durable, with and without an attack.
func BenchmarkNeighbours(b *testing.B) {
	for name, attacked := range map[string]bool{"quiet": false, "attacked": true} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(neighboursRun(b, attacked).Seconds(), "log-s")
			}
		})
	}
}
