package network

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"time"
)

// The message of fence_kdump_send to the nodes of a cluster: two numbers of 32 bits in the byte order of the machine (fence-agents,
// agents/kdump/message.h). A node that gets it counts this machine as fenced.
const (
	fenceMagic   = 0x1B302A40
	fenceVersion = 1
	// fenceEvery is the interval of fence_kdump_send.
	fenceEvery = 10 * time.Second
)

func fenceMessage() []byte {
	b := binary.NativeEndian.AppendUint32(nil, fenceMagic)
	return binary.NativeEndian.AppendUint32(b, fenceVersion)
}

// fence sends messages to all nodes until ctx ends, and at once when a link changes.
func (m *Manager) fence(ctx context.Context) {
	for {
		m.mu.Lock()
		changed, ready := m.changed, m.ready()
		m.mu.Unlock()
		for _, node := range m.Config.FenceKdump {
			m.fenceNode(ctx, node, ready)
		}
		select {
		case <-changed:
			sleep(ctx, poll) // one link rarely changes alone
		case <-time.After(fenceEvery):
		case <-ctx.Done():
			return
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// fenceNode sends a node a message over each link, because nobody answers. The source has to be the address that the node knows.
func (m *Manager) fenceNode(ctx context.Context, node string, ready []*link) {
	host, port, err := net.SplitHostPort(node)
	if err != nil {
		return // checked with the configuration
	}
	if m.Config.Mode == "none" {
		m.noteFence(node, "the network", sendDatagram(ctx, &net.Dialer{}, node))
		return
	}
	for _, l := range ready {
		addrs, err := l.resolve(ctx, host)
		if err != nil {
			m.noteFence(node, l.name, err)
			continue
		}
		for _, a := range addrs {
			if routeTo(l.index, a) >= 0 {
				m.noteFence(node, l.name, sendDatagram(ctx, l.bound(&net.Dialer{}), net.JoinHostPort(a.String(), port)))
			}
		}
	}
}

func (m *Manager) noteFence(node, over string, err error) {
	if err != nil {
		m.logOnce("network: fence_kdump: %s over %s: %v", node, over, err)
		return
	}
	m.logOnce("network: fence_kdump: telling %s over %s every %.0f s", node, over, fenceEvery.Seconds())
}

func sendDatagram(ctx context.Context, d *net.Dialer, addr string) error {
	nc, err := d.DialContext(ctx, "udp", addr)
	if err != nil {
		return fmt.Errorf("no message sent: %w", err)
	}
	defer func() { _ = nc.Close() }()
	_, err = nc.Write(fenceMessage())
	return err
}
