package main

import (
	"os"
	"os/signal"
	"syscall"
)

// hangups are the SIGHUPs of a server. Until stop, none ends it.
type hangups struct{ c chan os.Signal }

// catchHangups begins to catch SIGHUP. One that comes before serve, or while its function runs, is kept. More than one are the same
// as one.
func catchHangups() *hangups {
	h := &hangups{c: make(chan os.Signal, 1)}
	signal.Notify(h.c, syscall.SIGHUP)
	return h
}

// serve calls f after each SIGHUP, until the returned function is called. That waits for f.
func (h *hangups) serve(f func()) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-h.c:
				f()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}

func (h *hangups) stop() { signal.Stop(h.c) }
