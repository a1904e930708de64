package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	corehaultls "github.com/corehaul/corehaul/tls"
)

// TestAlive asks a server that listens, and one that is stuck: in a loop that accepts connections, and on a lock of its sessions.
func TestAlive(t *testing.T) {
	r := newRig(t, nil)
	for range 3 {
		if err := r.server.Alive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.addr)
	if err != nil {
		t.Fatalf("after the question: %v", err)
	}
	_ = conn.Close()

	ctx, cancel := context.WithCancel(t.Context())
	stuck := r.server.loops.enter(&deafListener{asked: cancel})
	if err := r.server.Alive(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no connections are accepted on deaf") {
		t.Errorf("with a loop that is stuck: %v", err)
	}
	r.server.loops.exit(stuck)
	if err := r.server.Alive(t.Context()); err != nil {
		t.Errorf("without that loop: %v", err)
	}

	r.server.mu.Lock()
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.server.Alive(ctx); err == nil || !strings.Contains(err.Error(), "sessions are locked out") {
		t.Errorf("with a lock that is held: %v", err)
	}
	r.server.mu.Unlock()
}

// deafListener has deadlines that nobody notices. It calls asked for one in the past.
type deafListener struct {
	net.Listener
	asked func()
}

func (l *deafListener) SetDeadline(t time.Time) error {
	if !t.IsZero() {
		l.asked()
	}
	return nil
}

func (*deafListener) Addr() net.Addr { return &net.UnixAddr{Name: "deaf"} }

// TestTLSConfigDemandsClients refuses a configuration that would let everybody in, and keeps the one before.
func TestTLSConfigDemandsClients(t *testing.T) {
	dir := t.TempDir() + "/ca"
	if _, err := corehaultls.InitCA(dir); err != nil {
		t.Fatal(err)
	}
	good, err := corehaultls.ServerConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewTLSConfig(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set(&tls.Config{MinVersion: tls.VersionTLS13}); !errors.Is(err, errNoClientAuth) || c.now.Load() != good {
		t.Errorf("got %v", err)
	}
}
