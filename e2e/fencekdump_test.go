package e2e

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/network"
)

// TestFenceKdump: the agent of a Pacemaker cluster, which waits for the message of a node, counts this one as fenced.
func TestFenceKdump(t *testing.T) {
	t.Parallel()
	agent, err := lab.FenceKdump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	free, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).Port //nolint:forcetypeassert // of a UDP socket
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	m := &network.Manager{Log: t.Logf, Config: config.Network{Mode: "none", FenceKdump: []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}}}
	if err := m.Up(ctx); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	// It gets one of the messages that come every ten seconds, and no other, because nobody else knows the port.
	out, err := exec.CommandContext(ctx, agent, "--nodename=127.0.0.1", "--ipport="+strconv.Itoa(port), "--family=ipv4",
		"--action=off", "--timeout=120", "--verbose").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "received valid message from '127.0.0.1'") {
		t.Errorf("%v\n%s", err, out)
	}
}
