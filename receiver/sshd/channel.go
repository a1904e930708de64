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
	exitNotFound = 127 // as a shell's: there is no such command here
)

// closePatience is how long a peer may take to close its end of a channel that we have closed.
const closePatience = 2 * time.Second

// channel is an open session channel.
type channel struct {
	ssh.Channel
	c    *connection
	reqs <-chan *ssh.Request
	gone chan struct{} // closed when the peer has closed the channel or is gone itself
	once sync.Once     // finish
}

// serveChannel is the whole life of one session channel.
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
	_ = ch.finish(exitOK) // if nobody has said how it ended
	wg.Wait()
}

// purpose waits for the request that says what the channel is for, and returns what serves it; nil
// if there is nothing to serve.
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

// request looks at a request of a channel that has no purpose yet. done: it has one now, or never will.
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
		ch.reply(req, true) // so that the person who tries hears why not
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

// session is one of the protocol.
func (ch *channel) session(ctx context.Context) {
	conn := newChannelConn(ch)
	defer conn.end()
	_ = ch.c.srv.cfg.Receiver.HandleConn(ctx, conn, ch.c.peer()) // it is in the log
}

// other answers a request that changes nothing.
func (ch *channel) other(req *ssh.Request) {
	switch req.Type {
	case "env", "signal", "window-change", "eow@openssh.com", "keepalive@openssh.com":
		// Nothing here looks at them; clients send them as a matter of course.
	default:
		ch.c.refuse("refused a request", protocol.CodeDeclined, "request", clip(req.Type))
	}
	ch.reply(req, false)
}

func (ch *channel) reply(req *ssh.Request, ok bool) {
	if req.WantReply {
		_ = req.Reply(ok, nil) // a peer that is gone shows elsewhere
	}
}

// finish tells the peer how its command ended and closes the channel, and all of the connection if the
// peer does not close its own end soon: whoever waits in a Read or a Write is to be let go. Only the
// first call does something.
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
