package protocol

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// keepAliveEnd is one end of a connection, with a reader and a KeepAlive if asked for.
type keepAliveEnd struct {
	conn  *Conn
	alive chan error
	read  chan error
}

func startEnd(ctx context.Context, rw net.Conn, side Side, reads bool, k *KeepAlive) *keepAliveEnd {
	e := &keepAliveEnd{conn: NewConn(rw, side), alive: make(chan error, 1), read: make(chan error, 1)}
	if reads {
		go func() {
			_, err := e.conn.Read()
			e.read <- err
		}()
	}
	if k != nil {
		go func() { e.alive <- e.conn.KeepAlive(ctx, *k) }()
	}
	return e
}

// end waits for the reader, which must not have ended with a message.
func (e *keepAliveEnd) end(t *testing.T) {
	t.Helper()
	if err := <-e.read; err == nil {
		t.Error("a heartbeat was returned as a message")
	}
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		k := &KeepAlive{Heartbeat: 10 * time.Second, Timeout: 45 * time.Second}
		sender, receiver := startEnd(ctx, a, Sender, true, k), startEnd(ctx, b, Receiver, true, k)
		time.Sleep(time.Hour)
		if n := sender.conn.BytesRead(); n < 360*(headerLen+pingLen) {
			t.Errorf("the sender heard %d bytes in an hour, want a heartbeat every 10 s", n)
		}
		cancel()
		if err := errors.Join(<-sender.alive, <-receiver.alive); err != nil {
			t.Errorf("got %v, want nil after the context ended", err)
		}
		_ = a.Close()
		if err := <-receiver.read; !errors.Is(err, io.EOF) {
			t.Errorf("the receiver read %v, want io.EOF: an idle line was no error", err)
		}
		sender.end(t)
	})
}

// TestKeepAliveOfOneSide: a peer that only reads still answers.
func TestKeepAliveOfOneSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		sender := startEnd(ctx, a, Sender, true, &KeepAlive{Timeout: 20 * time.Second})
		receiver := startEnd(ctx, b, Receiver, true, nil)
		time.Sleep(time.Hour)
		cancel()
		if err := <-sender.alive; err != nil {
			t.Errorf("got %v, want nil", err)
		}
		_ = a.Close()
		sender.end(t)
		receiver.end(t)
	})
}

func TestKeepAliveFindsASilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, b) }() // takes everything, says nothing
		start := time.Now()
		sender := startEnd(t.Context(), a, Sender, true, &KeepAlive{Timeout: 30 * time.Second})
		if err := <-sender.alive; !errors.Is(err, CodeTimeout) {
			t.Errorf("got %v, want %s", err, CodeTimeout)
		}
		if d := time.Since(start); d < 30*time.Second || d > 40*time.Second {
			t.Errorf("found after %v, want about 30 s", d)
		}
		if err := <-sender.read; err == nil {
			t.Error("the reader was not woken")
		}
	})
}

func TestKeepAliveFindsAPeerThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer func() { _ = b.Close() }()
		sender := startEnd(t.Context(), a, Sender, false, &KeepAlive{Timeout: 30 * time.Second})
		err := sender.conn.Write(exampleHello())
		if err == nil {
			t.Error("written to nobody")
		}
		if err := <-sender.alive; !errors.Is(err, CodeTimeout) {
			t.Errorf("got %v, want %s", err, CodeTimeout)
		}
	})
}

// TestKeepAliveLeavesABusyPeerAlone: one that reads nothing, because it is working, but
// goes on sending heartbeats is not gone; nor are we for it.
func TestKeepAliveLeavesABusyPeerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		k := &KeepAlive{Timeout: 30 * time.Second}
		sender, receiver := startEnd(ctx, a, Sender, true, k), startEnd(ctx, b, Receiver, false, k)
		go func() { _ = sender.conn.Write(exampleHello()) }() // nobody takes it
		time.Sleep(10 * time.Minute)
		select {
		case err := <-receiver.alive:
			t.Errorf("the busy side gave up: %v", err)
		case err := <-sender.alive:
			t.Errorf("the other side gave up: %v", err)
		default:
		}
		cancel()
		_ = b.Close()
		sender.end(t)
	})
}
