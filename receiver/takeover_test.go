package receiver

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// TestTakeOverFromADeadLine has the old session hang in a write that nobody takes: the
// sender that came back must not wait until that is found out by itself.
func TestTakeOverFromADeadLine(t *testing.T) {
	r := newRig(t, func(c *Config) { c.IdleTimeout = time.Hour })
	d := newDump(t, 1)
	server, dead := net.Pipe() // takes nothing that is not read
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.server.HandleConn(t.Context(), server, Peer{Host: "web1", Addr: "pipe", Transport: "test"}); !errors.Is(err, protocol.CodeSuperseded) {
			t.Errorf("the old session ended with %v", err)
		}
	})
	wire := protocol.NewConn(dead, protocol.Sender)
	log := wire.NewLogWriter()
	err := errors.Join(wire.Write(&d.hello), wire.WriteNotes(d.notes), wire.WriteRAM(d.ram))
	if _, werr := io.WriteString(log, d.log); err != nil || werr != nil {
		t.Fatal(err, werr)
	}
	if err := log.Close(""); err != nil {
		t.Fatal(err)
	}
	if sealed := r.peer("web1", d).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	wg.Wait()
	_ = dead.Close()
}

// TestSenderThatBringsNothingLosesItsPlace has one that sends heartbeats only.
func TestSenderThatBringsNothingLosesItsPlace(t *testing.T) {
	t.Parallel() // it waits
	r := newRig(t, func(c *Config) { c.MaxActive, c.StallTimeout = 1, 15*time.Second })
	idle := r.peer("web1", newDump(t, 1))
	idle.hello()
	idle.plan()
	next := r.peer("web2", newDump(t, 2))
	next.hello()
	idle.refused(protocol.CodeTimeout)
	next.plan()
	next.finish(protocol.ReasonCancelled)
	if log := r.log.String(); !strings.Contains(log, "code=timeout") {
		t.Errorf("the log does not say so:\n%s", log)
	}
}
