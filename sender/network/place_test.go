package network

import (
	"context"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// place is a network namespace at the other end of cables.
type place struct {
	ns     netns.NsHandle
	handle *netlink.Handle
}

// elsewhere makes a place.
func elsewhere(t *testing.T) *place {
	t.Helper()
	p := new(place)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var err error
		if p.ns, err = netns.New(); err == nil {
			p.handle, err = netlink.NewHandleAt(p.ns)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.handle.Close(); _ = p.ns.Close() })
	p.up(t, "lo")
	return p
}

// in runs f in the place.
func (p *place) in(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := netns.Set(p.ns); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// cable leads from an interface of the place, which has the addresses, to one here. It has no carrier before up.
func (p *place) cable(t *testing.T, there, here string, addrs ...string) (client netlink.Link) {
	t.Helper()
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: there}, PeerName: here, PeerNamespace: nil}); err != nil {
		t.Fatal(err)
	}
	client, err := netlink.LinkByName(here)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(client) })
	l, err := netlink.LinkByName(there)
	if err == nil {
		err = netlink.LinkSetNsFd(l, int(p.ns))
	}
	if err != nil {
		t.Fatal(err)
	}
	p.give(t, there, addrs...)
	return client
}

// give adds addresses to an interface of the place.
func (p *place) give(t *testing.T, link string, addrs ...string) {
	t.Helper()
	l, err := p.handle.LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if err := p.handle.AddrAdd(l, testAddr(a)); err != nil {
			t.Fatal(err)
		}
	}
}

// set plugs the cable of an interface of the place in or out.
func (p *place) set(t *testing.T, link string, change func(netlink.Link) error) {
	t.Helper()
	l, err := p.handle.LinkByName(link)
	if err == nil {
		err = change(l)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (p *place) up(t *testing.T, link string) { t.Helper(); p.set(t, link, p.handle.LinkSetUp) }

func (p *place) down(t *testing.T, link string) { t.Helper(); p.set(t, link, p.handle.LinkSetDown) }

// listen accepts connections at an address of the place.
func (p *place) listen(t *testing.T, addr string) {
	t.Helper()
	p.in(t, func() {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
			}
		}()
		t.Cleanup(func() { _ = l.Close(); <-done })
	})
}

// names answers DNS questions at an address of the place: the name collector.test has that IPv4 address, or does not exist.
func (p *place) names(t *testing.T, at string, collector net.IP) {
	t.Helper()
	p.in(t, func() {
		c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", at+":53")
		if err != nil {
			t.Error(err)
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			b := make([]byte, 1500)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				if reply := answer(b[:n], collector); reply != nil {
					_, _ = c.WriteTo(reply, from)
				}
			}
		}()
		t.Cleanup(func() { _ = c.Close(); <-done })
	})
}

func answer(question []byte, collector net.IP) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.Additionals = true, nil
	q := m.Questions[0]
	switch {
	case collector == nil || !strings.HasPrefix(q.Name.String(), "collector.test."):
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.AResource{A: [4]byte(collector.To4())},
		}}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// grant runs a DHCP server on an interface of the place.
func (p *place) grant(t *testing.T, link string, l lease) {
	t.Helper()
	p.in(t, func() { l.serve(t, link) })
}

// syns receives a value for each first packet of a TCP connection that comes to an interface of the place.
func (p *place) syns(t *testing.T, link string) <-chan struct{} {
	t.Helper()
	l, err := p.handle.LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	p.in(t, func() {
		const ip = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8 // in network byte order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, ip); err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: l.Attrs().Index})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "packets")
	seen, done := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, err := f.Read(b)
			if err != nil {
				return
			}
			// IPv4 without options, protocol TCP; the flags of TCP are SYN alone.
			if n >= 40 && b[0] == 0x45 && b[9] == unix.IPPROTO_TCP && b[33]&0x12 == 0x02 && len(seen) < cap(seen) {
				seen <- struct{}{}
			}
		}
	}()
	t.Cleanup(func() { _ = f.Close(); <-done })
	return seen
}

// testTime is enough for every wait on a loaded machine.
const testTime = 2 * time.Minute

// start brings up a Manager for the interfaces of a test.
func start(t *testing.T, m *Manager) (*logger, context.Context) {
	t.Helper()
	log := new(logger)
	m.Log = log.Logf
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	t.Cleanup(m.Close)
	if err := m.Up(ctx); err != nil {
		t.Fatal(err, log.lines)
	}
	return log, ctx
}

// await waits until the log has a line.
func (l *logger) await(ctx context.Context, t *testing.T, s string) {
	t.Helper()
	for !l.has(s) {
		select {
		case <-ctx.Done():
			t.Fatalf("no line has %q: %q", s, l.lines)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
