package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"time"
)

// A Link describes the network between the two sides.
type Link struct {
	Name string
	// rate is in bits per second. With 0, both sides share one namespace and its loopback device.
	rate int
	// burst is what tbf lets through at once, in bytes: more than a large segment, and than what passes between two ticks of the
	// kernel's clock.
	burst int
	// delay is what a proxy adds in each direction. netem would be better, but not every kernel has it.
	delay time.Duration
}

// Links are all links, the fastest first.
var Links = []Link{
	{Name: Loopback},
	{Name: Gigabit, rate: 1e9, burst: 512 << 10},
	{Name: Fast, rate: 1e8, burst: 128 << 10},
	{Name: Distant, rate: 1e9, burst: 512 << 10, delay: 10 * time.Millisecond},
}

// Addresses and devices of the two namespaces of a link.
const (
	nearDevice, farDevice   = "near", "far"
	nearAddress, farAddress = "10.99.0.1", "10.99.0.2"
	local                   = "127.0.0.1"
)

// A network is a link that exists. The sender is in near, the receiver in far.
type network struct {
	Link
	near, far *namespace
	// host is where senders find the receiver.
	host string
	// device is that of near whose counters are those of the link.
	device string
	proxy  *exec.Cmd
}

// open makes the link. The program starts the proxy of a link with a delay as itself.
func (l Link) open(ctx context.Context, program string) (*network, error) {
	near, err := newNamespace()
	if err != nil {
		return nil, err
	}
	n := &network{Link: l, near: near, far: near, host: local, device: "lo"}
	if l.rate == 0 {
		return n, nil
	}
	if err := n.connect(); err != nil {
		n.close()
		return nil, fmt.Errorf("link %s: %w", l.Name, err)
	}
	if l.delay == 0 {
		return n, nil
	}
	n.host = local
	if n.proxy, err = startProxy(ctx, program, near, l.delay); err != nil {
		n.close()
		return nil, fmt.Errorf("link %s: %w", l.Name, err)
	}
	return n, nil
}

// connect makes the other namespace, and a pair of devices with a limited rate.
func (n *network) connect() (err error) {
	if n.far, err = newNamespace(); err != nil {
		n.far = n.near
		return err
	}
	n.host, n.device = farAddress, nearDevice
	err = n.near.run("ip", "link", "add", nearDevice, "type", "veth", "peer", "name", farDevice, "netns", n.far.path())
	for _, end := range []struct {
		ns              *namespace
		device, address string
	}{{n.near, nearDevice, nearAddress}, {n.far, farDevice, farAddress}} {
		if err == nil {
			err = end.ns.run("ip", "address", "add", end.address+"/24", "dev", end.device)
		}
		if err == nil {
			err = end.ns.run("ip", "link", "set", end.device, "up")
		}
		if err == nil {
			err = end.ns.run("tc", "qdisc", "add", "dev", end.device, "root", "tbf",
				"rate", strconv.Itoa(n.rate)+"bit", "burst", strconv.Itoa(n.burst), "latency", "50ms")
		}
	}
	return err
}

// carried is what the link has carried so far, in both directions. The loopback device receives what it sends.
func (n *network) carried() (uint64, error) {
	sent, received, err := n.near.counters(n.device)
	if n.rate == 0 {
		return sent, err
	}
	return sent + received, err
}

// listening waits until somebody listens on a port of the receiver's side.
func (n *network) listening(ctx context.Context, port int) error {
	address := net.JoinHostPort(local, strconv.Itoa(port))
	for range 600 {
		err := n.far.do(func() error {
			nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err == nil {
				err = nc.Close()
			}
			return err
		})
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("nobody listens on %s after 30 s", address)
}

func (n *network) close() {
	if n.proxy != nil {
		_ = errors.Join(n.proxy.Process.Kill(), n.proxy.Wait()) // it has no state to save
	}
	if n.far != n.near {
		n.far.close()
	}
	n.near.close()
}
