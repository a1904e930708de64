package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/hostname"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/sshd"
)

// A process that sshd started hands its connection over with an HTTP request on the control socket. After the upgrade
// the socket carries the stream and no HTTP (RFC 9110, section 7.8). The server trusts the host in the request,
// because only its own user and root can open the socket.
const (
	receivePath  = "/v1/receive"
	hostHeader   = "Corehaul-Host"
	peerHeader   = "Corehaul-Peer"
	maxPeerBytes = 256
)

// handover is a listener of connections that other processes hand over.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newHandover() *handover {
	h := &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
	h.close = sync.OnceFunc(func() { close(h.closed) })
	return h
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error { h.close(); return nil }

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return &net.UnixAddr{Name: receivePath, Net: "unix"} }

// listener returns the listener that serves these connections.
func (h *handover) listener(server *receiver.Server) listener {
	return listener{Listener: h, serve: func(ctx context.Context, l net.Listener) error {
		return server.Serve(ctx, l, func(ctx context.Context, conn net.Conn) {
			if c, ok := conn.(*handedConn); ok {
				_ = server.HandleConn(ctx, c, c.peer) // HandleConn logs its errors
			}
		})
	}}
}

// handedConn is a connection that another process has handed over.
type handedConn struct {
	*net.UnixConn
	peer receiver.Peer
}

// RemoteAddr is the address of the sender.
func (c *handedConn) RemoteAddr() net.Addr { return peerAddr(c.peer.Addr) }

type peerAddr string

func (a peerAddr) Network() string { return sshd.Transport }
func (a peerAddr) String() string  { return string(a) }

// handler answers a process that hands over a connection.
func (h *handover) handler(log *slog.Logger) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		peer := receiver.Peer{Host: r.Header.Get(hostHeader), Addr: r.Header.Get(peerHeader), Transport: sshd.Transport}
		hijacker, ok := w.(http.Hijacker)
		if !ok || len(peer.Addr) > maxPeerBytes || hostname.Check(peer.Host) != nil || r.Header.Get("Upgrade") != protocol.Subsystem {
			http.Error(w, "the request does not hand over a connection of a host", http.StatusBadRequest)
			return
		}
		raw, buf, err := hijacker.Hijack()
		if err != nil {
			log.Warn("cannot take over a connection", "peer", peer.Addr, "host", peer.Host, "error", err)
			return
		}
		if err := h.giveToAccept(raw, buf, peer); err != nil {
			log.Warn("cannot take over a connection", "peer", peer.Addr, "host", peer.Host, "error", err)
			_ = raw.Close() // the process gets an error
		}
	}
}

// giveToAccept ends HTTP on a connection and gives the connection to Accept.
func (h *handover) giveToAccept(raw net.Conn, buf *bufio.ReadWriter, peer receiver.Peer) error {
	conn, ok := raw.(*net.UnixConn)
	if !ok || buf.Reader.Buffered() > 0 {
		return errors.New("data came before the answer")
	}
	if err := conn.SetDeadline(time.Time{}); err != nil { // those of HTTP
		return err
	}
	_, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol.Subsystem+"\r\n\r\n")
	if err != nil {
		return err
	}
	select {
	case h.conns <- &handedConn{UnixConn: conn, peer: peer}:
		return nil
	case <-h.closed:
		return errors.New("the server is stopping")
	}
}

// handOver asks the server at path to take a connection. It returns the socket to write to, and the reader to read
// from.
func handOver(ctx context.Context, path, host, peer string) (*net.UnixConn, io.Reader, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, nil, noServer(path, err)
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("%s is not a socket", path), conn.Close())
	}
	in, err := upgrade(ctx, unix, host, peer)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the server at %s: %w", path, err), unix.Close())
	}
	return unix, in, nil
}

func upgrade(ctx context.Context, conn *net.UnixConn, host, peer string) (io.Reader, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://corehaul"+receivePath, nil)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": protocol.Subsystem, hostHeader: host, peerHeader: peer} {
		req.Header.Set(name, value)
	}
	if err := conn.SetDeadline(time.Now().Add(controlTimeout)); err != nil {
		return nil, err
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = resp.Body.Close() }() // only read
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxPeerBytes))
		return nil, fmt.Errorf("it accepts no connections: %s: %s", resp.Status, strings.TrimSpace(cli.Printable(string(text))))
	}
	return in, conn.SetDeadline(time.Time{})
}
