package sender

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	corehaultls "github.com/corehaul/corehaul/tls"
)

// tlsPeer is a listener on 127.0.0.1 that shakes hands, and an identity for it.
func tlsPeer(t *testing.T) (addr *net.TCPAddr, id *corehaultls.Identity) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := corehaultls.InitCA(dir); err != nil {
		t.Fatal(err)
	}
	conf, err := corehaultls.ServerConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if tc, ok := c.(*tls.Conn); ok {
				_ = tc.HandshakeContext(t.Context())
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal(l.Addr())
	}
	return addr, identity(t, dir)
}

func identity(t *testing.T, dir string) *corehaultls.Identity {
	t.Helper()
	pem, err := corehaultls.IssueHost(dir, "web-17")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "id.pem")
	if err := os.WriteFile(file, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	id, err := corehaultls.LoadIdentity(file)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// blackHole makes a port of ::1 swallow connections: Linux answers no SYN when the queue of a
// listener is full.
func blackHole(t *testing.T, port int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	sa := &syscall.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}
	if err := syscall.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	// The queue of a backlog of 0 holds one connection (sk_acceptq_is_full in include/net/sock.h).
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort("::1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		if info.Unacked > info.Sacked { // of a listener: how many wait in the queue, and its backlog (tcp_get_info in net/ipv4/tcp.c)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// dns answers every question for addresses with ::1 and 127.0.0.1, until the test ends, and
// makes itself the resolver of this process.
func dns(t *testing.T) {
	t.Helper()
	pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(dnsAnswer(buf[:n]), from)
		}
	}()
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
	t.Cleanup(func() { net.DefaultResolver = old; _ = pc.Close(); <-done })
}

// dnsAnswer answers a query with one question (RFC 1035, part 4.1).
func dnsAnswer(query []byte) []byte {
	const header, question = 12, 4
	end := header
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 1 + question
	kind := binary.BigEndian.Uint16(query[end-question:])
	ip := map[uint16]net.IP{1: net.IPv4(127, 0, 0, 1).To4(), 28: net.IPv6loopback}[kind]
	a := append([]byte(nil), query[:end]...)
	binary.BigEndian.PutUint16(a[2:], 0x8180)
	clear(a[6:header]) // no answer, authority or additional record yet
	if ip == nil {
		return a
	}
	a[7] = 1
	a = append(a, 0xc0, header) // the name of the question
	a = binary.BigEndian.AppendUint16(a, kind)
	a = append(a, 0, 1, 0, 0, 0, 60, 0, byte(len(ip)))
	return append(a, ip...)
}

// TestDialName: one of a name's addresses answers, the other one, tried first, swallows
// everything.
func TestDialName(t *testing.T) {
	addr, id := tlsPeer(t)
	blackHole(t, addr.Port)
	dns(t)
	ips, err := net.DefaultResolver.LookupIPAddr(t.Context(), "collector.test")
	if err != nil || len(ips) != 2 {
		t.Fatalf("the name has the addresses %v, %v", ips, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), dialTimeout)
	defer cancel()
	c, err := DialTLS(corehaultls.ClientConfig(id), nil)(ctx, "tls://collector.test:"+strconv.Itoa(addr.Port))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// TestDialErrors holds which failures another try may mend.
func TestDialErrors(t *testing.T) {
	addr, _ := tlsPeer(t)
	_, other := tlsPeer(t)
	dial := DialTLS(corehaultls.ClientConfig(other), nil)
	_, err := dial(t.Context(), "tls://"+addr.String())
	if _, ok := errors.AsType[*corehaultls.PinError](err); !ok || !permanent(err) {
		t.Errorf("another key: got %v, want a PinError for good", err)
	}
	if _, err := dial(t.Context(), "tls://127.0.0.1:1"); !errors.Is(err, syscall.ECONNREFUSED) || permanent(err) || !passing(&dialError{err}) {
		t.Errorf("nobody there: got %v, want it to pass", err)
	}
	blackHole(t, addr.Port)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := dial(ctx, "tls://[::1]:"+strconv.Itoa(addr.Port)); err == nil || permanent(err) || passing(&dialError{err}) {
		t.Errorf("a black hole: got %v, want it to be tried later", err)
	}
	if err := cancelledHandshake(t, dial); err == nil || permanent(err) {
		t.Errorf("a handshake that the deadline interrupted: got %v, want another try for the seal", err)
	}
}

// cancelledHandshake dials somebody who answers nothing, cancels the attempt during the handshake, and returns its error.
func cancelledHandshake(t *testing.T, dial Dialer) error {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // nobody else dials it
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 1)) // the handshake has begun
		cancel()
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}()
	_, err = dial(ctx, "tls://"+l.Addr().String())
	<-done
	return err
}
