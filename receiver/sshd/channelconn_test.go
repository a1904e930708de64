package sshd

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestReadDeadline holds a conn to its deadlines.
func TestReadDeadline(t *testing.T) {
	client, server := pipe(t)
	if err := server.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline in the past: %v", err)
	}
	if err := server.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline that comes: %v", err)
	}
	if err := server.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(client, "hello"); _ = client.CloseWrite() }()
	if b, err := io.ReadAll(server); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestCloseUnblocks has a peer that neither reads nor closes.
func TestCloseUnblocks(t *testing.T) {
	_, server := pipe(t)
	failed := make(chan error, 1)
	go func() {
		for {
			if _, err := server.Write(make([]byte, 64<<10)); err != nil {
				failed <- err
				return
			}
		}
	}()
	time.Sleep(100 * time.Millisecond) // it fills the window
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("written to a closed channel")
	}
}

// pipe returns both ends of a channel. The client's is not served by anybody.
func pipe(t *testing.T) (ssh.Channel, *channelConn) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	host, _ := testKey(t)
	cfg := &ssh.ServerConfig{NoClientAuth: true}
	cfg.AddHostKey(host)
	type end struct {
		conn *channelConn
		err  error
	}
	got := make(chan end, 1)
	go func() {
		a, err := l.Accept()
		if err != nil {
			got <- end{err: err}
			return
		}
		server, chans, reqs, err := ssh.NewServerConn(a, cfg)
		if err != nil {
			got <- end{err: err}
			return
		}
		go ssh.DiscardRequests(reqs)
		raw, creqs, err := (<-chans).Accept()
		if err != nil {
			got <- end{err: err}
			return
		}
		ch := &channel{Channel: raw, c: &connection{ssh: server}, gone: make(chan struct{})}
		go func() {
			ssh.DiscardRequests(creqs)
			close(ch.gone)
		}()
		got <- end{conn: newChannelConn(ch)}
	}()
	client, err := ssh.Dial("tcp", l.Addr().String(), &ssh.ClientConfig{HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		t.Fatal(err)
	}
	ch, creqs, err := client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(creqs)
	e := <-got
	if e.err != nil {
		t.Fatal(e.err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		e.conn.end()
	})
	return ch, e.conn
}
