package sshd

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver"
)

// connection is the connection of an authenticated peer.
type connection struct {
	srv      *Server
	ssh      *ssh.ServerConn
	chans    <-chan ssh.NewChannel
	reqs     <-chan *ssh.Request
	entry    *Entry
	log      *slog.Logger
	ended    chan struct{} // has an element for each channel that has ended
	refusals atomic.Int64
	failures atomic.Int64
	commands atomic.Int64
}

func (c *connection) revoke() {
	c.refuse("ended a connection", protocol.CodeIdentity, "error", errRevoked)
	_ = c.ssh.Close()
}

// loggedOneByOne is how many events of a kind and connection are logged one by one. After that, only each power of two is
// logged, so that a peer cannot fill the disk with logs.
const loggedOneByOne = 16

// logged reports whether the n-th event of a kind, from 1, is logged.
func logged(n int64) bool { return n <= loggedOneByOne || n&(n-1) == 0 }

// refuse logs and counts a refusal.
func (c *connection) refuse(what string, code protocol.Code, args ...any) {
	c.srv.cfg.Receiver.Refused(code)
	if n := c.refusals.Add(1); logged(n) {
		c.log.Warn(what, append([]any{"code", string(code), "refusals", n}, args...)...)
	}
}

// failed logs a request of the peer that failed. Callers have to clip texts of the peer.
func (c *connection) failed(what string, args ...any) {
	if n := c.failures.Add(1); logged(n) {
		c.log.Warn(what, append([]any{"failures", n}, args...)...)
	}
}

// stopPatience is how long the channels of a connection may take to end when the server stops. A peer that does not read
// would delay the stop.
const stopPatience = 15 * time.Second

// run serves the connection until the peer leaves or has no channel for too long, or ctx is done and its channels have ended.
func (c *connection) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(c.refuseGlobal)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopPatience, func() { _ = c.ssh.Close() }) })
	defer stop()
	open := c.serveChannels(ctx, &wg)
	if ctx.Err() == nil {
		_ = c.ssh.Close() // ends the channels too
	}
	c.drain(open)
	_ = c.ssh.Close()
	for nc := range c.chans { // the library blocks until each is received
		_ = nc.Reject(ssh.ResourceShortage, "closing")
	}
	wg.Wait()
}

// drain waits for the end of the open channels, and rejects new ones.
func (c *connection) drain(open int) {
	chans := c.chans
	for open > 0 {
		select {
		case <-c.ended:
			open--
		case nc, ok := <-chans:
			if !ok {
				chans = nil
				continue
			}
			_ = nc.Reject(ssh.ResourceShortage, "closing")
		}
	}
}

// serveChannels returns how many channels are still open.
func (c *connection) serveChannels(ctx context.Context, wg *sync.WaitGroup) (open int) {
	idle := time.NewTimer(c.srv.cfg.Idle)
	defer idle.Stop()
	for {
		select {
		case nc, ok := <-c.chans:
			if !ok {
				return open
			}
			if c.accepts(nc) {
				open++
				wg.Go(func() { c.serveChannel(ctx, nc) })
			}
		case <-c.ended:
			open--
			idle.Reset(c.srv.cfg.Idle)
		case <-idle.C:
			if open == 0 {
				c.log.Info("closed an idle connection", "after", c.srv.cfg.Idle)
				return 0
			}
		case <-ctx.Done():
			return open
		}
	}
}

// accepts rejects channels that are no sessions, and those of a host that has too many.
func (c *connection) accepts(nc ssh.NewChannel) bool {
	if nc.ChannelType() != "session" {
		c.refuse("refused a channel", protocol.CodeDeclined, "type", clip(nc.ChannelType()))
		_ = nc.Reject(ssh.Prohibited, "corehaul forwards nothing")
		return false
	}
	if !c.srv.channels.Acquire(c.entry.Host) {
		c.refuse("refused a channel", protocol.CodeBusy, "limit", maxHostChannels)
		_ = nc.Reject(ssh.ResourceShortage, "too many channels of this host")
		return false
	}
	return true
}

// refuseGlobal refuses all global requests: they ask for forwarding, or are keepalives, for which any answer will do.
func (c *connection) refuseGlobal() {
	for req := range c.reqs {
		if req.Type == "tcpip-forward" || req.Type == "streamlocal-forward@openssh.com" {
			c.refuse("refused a request", protocol.CodeDeclined, "request", req.Type)
		}
		if req.WantReply {
			_ = req.Reply(false, nil)
		}
	}
}

// peer describes the peer for the receiver.
func (c *connection) peer() receiver.Peer {
	return receiver.Peer{Host: c.entry.Host, Addr: c.ssh.RemoteAddr().String(), Transport: Transport}
}

// clip shortens a text of a peer for a line of the log.
func clip(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "..."
	}
	return text
}
