package network

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/corehaul/corehaul/sender/config"
)

// TestFence: a node gets messages over the link that leads to it, once that has come up. A node without an address is named.
func TestFence(t *testing.T) {
	there := elsewhere(t)
	there.cable(t, "thp", "clp", "10.14.0.1/24")
	there.grant(t, "thp", lease{self: "10.14.0.1", client: "10.14.0.7"})
	there.up(t, "thp")
	var node net.PacketConn
	there.in(t, func() {
		var err error
		if node, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", "10.14.0.1:7410"); err != nil {
			t.Error(err)
		}
	})
	defer func() { _ = node.Close() }()
	m := &Manager{Config: config.Network{Mode: "dhcp", FenceKdump: []string{"nobody.test:7410", "10.14.0.1:7410"}}}
	log, ctx := start(t, m)
	if err := node.SetReadDeadline(time.Now().Add(testTime)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, from, err := node.ReadFrom(b)
	// What fence_kdump_send of fence-agents 4.12.1 sends on a machine with the lowest byte first.
	want := []byte{0x40, 0x2a, 0x30, 0x1b, 1, 0, 0, 0}
	if err != nil || !bytes.Equal(b[:n], want) || from.(*net.UDPAddr).IP.String() != "10.14.0.7" {
		t.Errorf("got %x from %v (%v), want %x from 10.14.0.7", b[:n], from, err, want)
	}
	log.await(ctx, t, "fence_kdump: telling 10.14.0.1:7410 over clp")
	log.await(ctx, t, "fence_kdump: nobody.test:7410 over clp: nobody.test: no DNS server")
}
