package receiver

import (
	"errors"
	"testing"

	"github.com/corehaul/corehaul/protocol"
)

func TestBudget(t *testing.T) {
	const total, session = 1000, 50
	b := newBudget(total)
	taken := 0
	for b.acquire("many", 0, session) == nil {
		taken++
	}
	if taken*session != total/4 {
		t.Errorf("the sessions of one host have %d of %d bytes", taken*session, total)
	}
	if err := b.acquire("one", 0, total/2); err != nil {
		t.Errorf("the first session of a host: %v", err)
	}
	if err := b.acquire("one", total/2, 1); !errors.Is(err, protocol.CodeBusy) {
		t.Errorf("more than half for one session: %v", err)
	}
	if err := b.acquire("third", 0, 100); err != nil {
		t.Errorf("a third host: %v", err)
	}
	if err := b.acquire("third", 0, 100); !errors.Is(err, protocol.CodeBusy) {
		t.Errorf("what is left is for hosts that have nothing: %v", err)
	}
	if err := b.acquire("fourth", 0, 100); err != nil {
		t.Errorf("a fourth host: %v", err)
	}
	for range taken {
		b.release("many", session, session)
	}
	b.release("one", total/2, total/4)
	b.release("one", total/4, total/4)
	b.release("third", 100, 100)
	b.release("fourth", 100, 100)
	if b.available() != total || len(b.hosts) != 0 {
		t.Errorf("%d bytes are left, and %d hosts", b.available(), len(b.hosts))
	}
}

// TestHostThatSaysHelloForEver has sessions of one host send notes and PING until no more of them are taken. Another host's log is
// stored meanwhile.
func TestHostThatSaysHelloForEver(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Memory = MinMemory })
	d := newDump(t, 1000)
	for n := uint64(1); r.busy() == 0; n++ {
		if n > 64 {
			t.Fatal("one host is never refused")
		}
		p, before := r.peer("mad", newDump(t, n)), r.server.hello.available() // its PINGs keep it alive
		p.send(&p.dump.hello)
		_ = p.wire.WriteNotes(make([]byte, 512<<10)) // the one that is refused may be cut off
		r.eventually("its notes are taken or refused", func() bool { return r.server.hello.available() <= before-1<<20 || r.busy() > 0 })
	}
	if held := r.server.shares.hello - r.server.hello.available(); held > r.server.shares.hello/2 {
		t.Errorf("one host holds %d of %d bytes", held, r.server.shares.hello)
	}
	p := r.peer("web1", d)
	if sealed := p.whole(); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
}
