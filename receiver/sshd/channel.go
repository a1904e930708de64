package sshd

import (
	"context"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/protocol"
)

// Exit statuses of a command.
const (
	exitOK       = 0
	exitNotFound = 127 // that of a shell for an unknown command
)

// closePatience is how long a peer may take to close its end of a channel after us.
const closePatience = 2 * time.Second

// channel is an open session channel.
type channel struct {
	ssh.Channel
	c    *connection
	reqs <-chan *ssh.Request
	gone chan struct{} // closed when the peer has closed the channel or is gone
	once sync.Once     // for finish
}

// serveChannel serves one session channel until its end.
func (c *connection) serveChannel(ctx context.Context, nc ssh.NewChannel) {
	defer func() {
		c.srv.channels.Release(c.entry.Host)
		c.ended <- struct{}{}
	}()
	raw, reqs, err := nc.Accept()
	if err != nil {
		return // the peer is gone
	}
	ch := &channel{Channel: raw, c: c, reqs: reqs, gone: make(chan struct{})}
	serve := ch.purpose()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(ch.gone)
		for req := range reqs {
			ch.other(req)
		}
	})
	if serve != nil {
		serve(ctx)
	}
	_ = ch.finish(exitOK) // does nothing if the channel is finished
	wg.Wait()
}

// purpose waits for the request that says what the channel is for, and returns the function that serves it. It returns nil if
// there is nothing to serve.
func (ch *channel) purpose() (serve func(context.Context)) {
	timer := time.NewTimer(ch.c.srv.cfg.Idle)
	defer timer.Stop()
	for {
		select {
		case req, ok := <-ch.reqs:
			if !ok {
				return nil
			}
			if serve, done := ch.request(req); done {
				return serve
			}
		case <-timer.C:
			ch.c.refuse("closed a channel", protocol.CodeTimeout, "error", "the client requested nothing")
			return nil
		}
	}
}

// request handles a request of a channel without a purpose. done means that it has one now, or never will.
func (ch *channel) request(req *ssh.Request) (serve func(context.Context), done bool) {
	switch req.Type {
	case "subsystem":
		return ch.subsystem(req)
	case "exec":
		var msg struct{ Command string }
		if ssh.Unmarshal(req.Payload, &msg) != nil {
			break
		}
		ch.reply(req, true)
		return func(ctx context.Context) { ch.exec(ctx, msg.Command) }, true
	case "shell":
		ch.reply(req, true) // so that the client shows the refusal
		return func(context.Context) { ch.noCommand("", nil) }, true
	}
	ch.other(req)
	return nil, false
}

func (ch *channel) subsystem(req *ssh.Request) (serve func(context.Context), done bool) {
	var msg struct{ Name string }
	err := ssh.Unmarshal(req.Payload, &msg)
	switch {
	case err == nil && msg.Name == protocol.Subsystem:
		serve = ch.session
	case err == nil && msg.Name == sftpSubsystem && ch.c.srv.cfg.Trees != nil:
		serve = ch.sftp
	default:
		ch.c.refuse("refused a subsystem", protocol.CodeDeclined, "subsystem", clip(msg.Name))
	}
	ch.reply(req, serve != nil)
	return serve, true
}

// session runs a session of the protocol.
func (ch *channel) session(ctx context.Context) {
	conn := newChannelConn(ch)
	defer conn.end()
	_ = ch.c.srv.cfg.Receiver.HandleConn(ctx, conn, ch.c.peer()) // the receiver logs the error
}

// other answers a request that has no effect.
func (ch *channel) other(req *ssh.Request) {
	switch req.Type {
	case "env", "signal", "window-change", "eow@openssh.com", "keepalive@openssh.com":
		// Clients always send these. They have no effect.
	default:
		ch.c.refuse("refused a request", protocol.CodeDeclined, "request", clip(req.Type))
	}
	ch.reply(req, false)
}

func (ch *channel) reply(req *ssh.Request, ok bool) {
	if req.WantReply {
		_ = req.Reply(ok, nil) // other calls notice a peer that is gone
	}
}

// finish sends the exit status and closes the channel. If the peer does not close its end soon, finish closes the whole
// connection, to end reads and writes in progress. Only the first call does something.
func (ch *channel) finish(status uint32) error {
	var err error
	ch.once.Do(func() {
		time.AfterFunc(closePatience, func() {
			select {
			case <-ch.gone:
			default:
				_ = ch.c.ssh.Close()
			}
		})
		if _, err = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status})); err == nil {
			err = ch.Close()
		}
	})
	return err
}
