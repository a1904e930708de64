package receiver

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// place reads until WAIT tells the place wanted.
func (p *peer) place(want uint64) {
	p.t.Helper()
	for {
		msg, err := p.wire.Read()
		if err != nil {
			p.t.Fatalf("waiting for place %d: %v", want, err)
		}
		if w, ok := msg.(*protocol.Wait); ok && w.Place == want {
			return
		}
	}
}

func TestWaitingSendersHearTheirPlace(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxActive = 1 })
	first := r.peer("web1", newDump(t, 1))
	first.hello()
	first.plan()
	second, third, fourth := r.peer("web2", newDump(t, 2)), r.peer("web3", newDump(t, 3)), r.peer("web4", newDump(t, 4))
	second.hello()
	second.place(1)
	third.hello()
	third.place(2)
	fourth.hello()
	fourth.place(3)
	if sealed := third.finish(protocol.ReasonDeadline); sealed.State != protocol.StateLogOnly {
		t.Errorf("gave up in line and was sealed as %s", sealed.State)
	}
	fourth.place(2)
	for seq := range uint64(5) {
		first.chunk(seq)
	}
	if sealed := first.finish(protocol.ReasonComplete); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	second.plan()
	fourth.place(1)
	second.finish(protocol.ReasonCancelled)
	fourth.plan()
}

func TestSenderMustNotSendBeforeWelcome(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxActive = 1 })
	first := r.peer("web1", newDump(t, 1))
	first.hello()
	first.plan()
	second := r.peer("web2", newDump(t, 2))
	second.hello()
	second.place(1)
	second.rawFrame(protocol.TypePlan, []byte{1, 8}, 0)
	second.refused(protocol.CodeOutOfOrder)
}

// TestManySessions has far more senders than the memory is for.
func TestManySessions(t *testing.T) {
	const senders = 24
	r := newRig(t, func(c *Config) { c.Memory = MinMemory; c.MaxActive = 8 })
	var wg sync.WaitGroup
	for i := range senders {
		d := newDump(t, uint64(i))
		d.encoding = []protocol.Encoding{protocol.EncodingSnappyPage, protocol.EncodingLZ4Block, protocol.EncodingNone}[i%3]
		p := r.peer(fmt.Sprintf("host%d", i), d)
		wg.Go(func() {
			// A failure ends this goroutine only, and the test when all have ended.
			if sealed := p.whole(); sealed.State != protocol.StateComplete {
				t.Errorf("host%d: sealed as %s", i, sealed.State)
			}
		})
	}
	wg.Wait()
	entries, err := r.store.List(t.Context(), storage.Filter{})
	if err != nil || len(entries) != senders {
		t.Fatalf("%d dumps are stored: %v", len(entries), err)
	}
	for _, e := range entries {
		r.stored(e.Host)
	}
	if r.server.hello.free != r.server.shares.hello || r.server.queue.Admitted() != 0 {
		t.Errorf("%d bytes and %d slots were not given back", r.server.shares.hello-r.server.hello.free, r.server.queue.Admitted())
	}
}

func TestHelloMemoryIsBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Memory = MinMemory })
	d := newDump(t, 1)
	d.notes = make([]byte, 7<<20) // counts twice, of 8 MiB
	p := r.peer("web1", d)
	p.send(&d.hello)
	for off := 0; off < len(d.notes); off += protocol.PieceBytes {
		if p.wire.Write(&protocol.Notes{Data: d.notes[off : off+protocol.PieceBytes]}) != nil {
			break // refused already
		}
	}
	p.refused(protocol.CodeBusy)
	if sealed := r.peer("web2", newDump(t, 2)).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("another host is harmed: sealed as %s", sealed.State)
	}
}

// TestSessionsOfOneHostAreBounded has a host begin more sessions than it may have. Others are not harmed.
func TestSessionsOfOneHostAreBounded(t *testing.T) {
	const most = 8
	r := newRig(t, func(c *Config) { c.MaxConnections = 2 * most })
	var first net.Conn
	for range most {
		first = r.connect("web1")
	}
	r.eventually("all sessions", func() bool { return len(r.server.Status(t.Context()).Sessions) == most })
	r.peer("web1", newDump(t, 1)).refused(protocol.CodeBusy)
	if sealed := r.peer("web2", newDump(t, 2)).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("another host is harmed: sealed as %s", sealed.State)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	r.eventually("the end of one", func() bool { return len(r.server.Status(t.Context()).Sessions) < most })
	if sealed := r.peer("web1", newDump(t, 1)).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("with one less: sealed as %s", sealed.State)
	}
}

// smallDisk is a store with little room.
type smallDisk struct {
	storage.Store
	mu   sync.Mutex
	free uint64
}

func (s *smallDisk) Space(context.Context) (storage.Space, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return storage.Space{Total: 1 << 40, Free: s.free}, nil
}

func (s *smallDisk) setFree(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = n
}

// waits reads until WAIT gives a reason that holds all of the texts.
func (p *peer) waits(texts ...string) *protocol.Wait {
	p.t.Helper()
	for {
		msg, err := p.wire.Read()
		if err != nil {
			p.t.Fatalf("waiting for WAIT with %q: %v", texts, err)
		}
		w, ok := msg.(*protocol.Wait)
		if ok && !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(w.Reason, s) }) {
			return w
		}
	}
}

// withDisk gives the rig a disk whose free space a test sets, beside a reserve of 1 GiB.
func withDisk(disk **smallDisk, free uint64) func(*Config) {
	return func(c *Config) {
		*disk = &smallDisk{Store: c.Store, free: 1<<30 + free}
		c.Store = *disk
		c.Room = admission.NewRoom(c.Store, admission.Limits{Reserve: 1 << 30}, c.Log)
	}
}

func TestPlanWithoutRoomWaits(t *testing.T) {
	var disk *smallDisk
	r := newRig(t, withDisk(&disk, 1000))
	d := newDump(t, 1)
	p := r.peer("web1", d)
	p.hello()
	expect[*protocol.Welcome](p)
	p.sendPlan()
	if w := p.waits("1000 B free beyond the reserve of 1.000 GiB", "this one at least 557.609 KiB"); w.Place != 1 || w.Of != 1 {
		t.Errorf("waits in place %d of %d", w.Place, w.Of)
	}
	// Another one, whose plan is not known yet, is let in all the same.
	log := r.peer("web2", newDump(t, 2))
	log.hello()
	expect[*protocol.Welcome](log)
	if sealed := log.finish(protocol.ReasonLogOnly); sealed.State != protocol.StateLogOnly {
		t.Errorf("sealed as %s", sealed.State)
	}
	disk.setFree(2 << 30)
	if have := expect[*protocol.PlanOK](p).Have; !have.Empty() {
		t.Error("has chunks before the first")
	}
	for seq := range uint64(5) {
		p.chunk(seq)
	}
	if sealed := p.finish(protocol.ReasonComplete); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	r.samePages("web1", d, 0, 1, 2, 3, 4)
	if free := r.server.hello.available(); free != r.server.shares.hello {
		t.Errorf("%d bytes were not given back", r.server.shares.hello-free)
	}
}

func TestSenderGivesUpWaitingForRoom(t *testing.T) {
	var disk *smallDisk
	r := newRig(t, withDisk(&disk, 1000))
	p := r.peer("web1", newDump(t, 1))
	p.hello()
	expect[*protocol.Welcome](p)
	p.sendPlan()
	p.waits("no room")
	if sealed := p.finish(protocol.ReasonDeadline); sealed.State != protocol.StateLogOnly {
		t.Errorf("sealed as %s", sealed.State)
	}
}

// TestFullDiskInTheMiddle fills the disk under a dump that is on its way.
func TestFullDiskInTheMiddle(t *testing.T) {
	var disk *smallDisk
	r := newRig(t, withDisk(&disk, 1<<30))
	d := newDump(t, 1)
	p := r.peer("web1", d)
	p.hello()
	p.plan()
	p.chunk(0)
	p.acked(0)
	disk.setFree(1<<30 - 1) // somebody else filled the disk
	p.chunk(1)
	_, err := p.wire.Read()
	for err == nil {
		_, err = p.wire.Read()
	}
	var told *protocol.Error
	if !errors.As(err, &told) || told.Code != protocol.CodeNoSpace || told.RetryAfter == 0 || !strings.Contains(told.Text, "1.000 GiB are reserved") {
		t.Errorf("got %v, want no-space with numbers and when to come back", err)
	}
	p = r.peer("web1", d) // it comes back too early, and waits with what it has
	p.hello()
	expect[*protocol.Welcome](p)
	p.sendPlan()
	p.waits("no room")
	disk.setFree(2 << 30)
	if have := expect[*protocol.PlanOK](p).Have; !have.Contains(0) {
		t.Error("chunk 0 is lost")
	}
	_ = p.raw.NetConn().Close()
	if sealed := r.peer("web1", d).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
}

func TestUnknownPeersGetNothing(t *testing.T) {
	r := newRig(t, nil)
	other := newRig(t, nil)
	ours := r.identity("web1")
	foreign := other.identity("web1")
	foreign.Pins = ours.Pins // knows the receiver, but has a certificate of another CA
	wrongPin := r.identity("web1")
	wrongPin.Pins = other.identity("web1").Pins
	for _, tc := range []struct {
		name   string
		config *cryptotls.Config
	}{
		{"foreign CA", corehaultls.ClientConfig(foreign)},
		{"wrong pin", corehaultls.ClientConfig(wrongPin)},
		{"no certificate", func() *cryptotls.Config {
			c := corehaultls.ClientConfig(ours)
			c.Certificates, c.GetClientCertificate = nil, nil
			return c
		}()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := strings.Count(r.log.String(), "refused a connection")
			d := cryptotls.Dialer{Config: tc.config}
			conn, err := d.DialContext(t.Context(), "tcp", r.addr)
			if err == nil { // the client's side of TLS 1.3 may end before the server has looked
				_, err = conn.Read(make([]byte, 1))
				_ = conn.Close()
			}
			if err == nil || errors.Is(err, io.EOF) {
				t.Errorf("got %v, want a refusal", err)
			}
			r.eventually("the refusal is in the log", func() bool {
				return strings.Count(r.log.String(), "refused a connection") == before+1
			})
		})
	}
	entries, err := r.store.List(t.Context(), storage.Filter{})
	if err != nil || len(entries) != 0 {
		t.Errorf("%d dumps are stored: %v", len(entries), err)
	}
}

func TestNameThatIsNoDirectoryIsRefused(t *testing.T) {
	r := newRig(t, nil)
	ours, theirs := net.Pipe() // no CA of ours issues such a name
	served := make(chan error, 1)
	go func() {
		served <- r.server.HandleConn(t.Context(), theirs, Peer{Host: strings.Repeat("long", 17), Addr: "pipe", Transport: "pipe"})
	}()
	if _, err := protocol.NewConn(ours, protocol.Sender).Read(); !errors.Is(err, protocol.CodeIdentity) {
		t.Errorf("the peer hears %v", err)
	}
	if err := <-served; !errors.Is(err, protocol.CodeIdentity) {
		t.Errorf("served: %v", err)
	}
	if log := r.log.String(); !strings.Contains(log, "cannot be a directory") {
		t.Errorf("the log does not say so:\n%s", log)
	}
}

func TestTooManyConnectionsAreClosed(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 1 })
	p := r.peer("web1", newDump(t, 1))
	p.hello()
	d := cryptotls.Dialer{Config: corehaultls.ClientConfig(r.identity("web2"))}
	if conn, err := d.DialContext(t.Context(), "tcp", r.addr); err == nil {
		_ = conn.Close()
		t.Error("a second connection was taken")
	}
	p.plan()
	p.finish(protocol.ReasonCancelled)
	r.eventually("the place is free again", func() bool {
		conn, err := d.DialContext(t.Context(), "tcp", r.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func TestExpiryOrder(t *testing.T) {
	e := newExpiry()
	now := time.Unix(1000, 0)
	a, b := storage.Ref{Host: "a"}, storage.Ref{Host: "b"}
	e.set(a, absence{until: now.Add(time.Second)})
	e.set(b, absence{until: now.Add(3 * time.Second)})
	if due, wait, ok := e.next(now); len(due) != 0 || !ok || wait != time.Second {
		t.Errorf("got %v, %v, %v; want none due for a second", due, wait, ok)
	}
	if due, wait, _ := e.next(now.Add(2 * time.Second)); len(due) != 1 || due[0] != a || wait != time.Second {
		t.Errorf("got %v, %v; want a, and b in a second", due, wait)
	}
	e.cancel(b)
	if _, _, ok := e.next(now); ok {
		t.Error("b is still waited for")
	}
}
