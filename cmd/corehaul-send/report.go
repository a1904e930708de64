package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/sender"
)

// liveEvery is the interval of updates of the progress line on a terminal.
const liveEvery = 500 * time.Millisecond

// reporter prints the progress: a live line on a terminal, lines at intervals elsewhere, and one more line for each
// SIGUSR1.
type reporter struct {
	stdio cli.Stdio
	meter *sender.Meter
	every time.Duration
	live  bool

	mu    sync.Mutex
	shown bool // the terminal shows a live line
	quit  chan struct{}
	done  chan struct{}
}

func newReporter(stdio cli.Stdio, meter *sender.Meter, every time.Duration) *reporter {
	r := &reporter{stdio: stdio, meter: meter, every: every, quit: make(chan struct{}), done: make(chan struct{})}
	r.live = every > 0 && cli.IsTerminal(stdio.Err)
	return r
}

// Printf prints a line.
func (r *reporter) Printf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	_, _ = fmt.Fprintf(r.stdio.Err, "%s: %s\n", name, cli.Printable(fmt.Sprintf(format, args...)))
}

// clear removes the live line; mu is held.
func (r *reporter) clear() {
	if r.shown {
		_, _ = fmt.Fprint(r.stdio.Err, "\r\x1b[K")
		r.shown = false
	}
}

func (r *reporter) show() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	_, _ = fmt.Fprint(r.stdio.Err, liveLine(r.meter.Progress(), cli.Width(r.stdio.Err)))
	r.shown = true
}

// liveLine formats p for a terminal of so many columns, 0 if that is not known. The last column stays empty: some terminals break a full line.
func liveLine(p sender.Progress, columns int) string {
	line := cli.Printable(p.String())
	if columns == 0 {
		return line
	}
	room := max(columns-1, 1)
	if cli.Clip(line, room) != line {
		line = cli.Clip(cli.Printable(p.Short()), room)
	}
	return line
}

func (r *reporter) start() {
	go func() {
		defer close(r.done)
		usr1 := make(chan os.Signal, 1)
		signal.Notify(usr1, syscall.SIGUSR1)
		defer signal.Stop(usr1)
		var tick <-chan time.Time
		if every := r.interval(); every > 0 {
			t := time.NewTicker(every)
			defer t.Stop()
			tick = t.C
		}
		for {
			select {
			case <-r.quit:
				return
			case <-usr1:
				r.Printf("%s", r.meter.Progress())
			case <-tick:
				if r.live {
					r.show()
				} else {
					r.Printf("%s", r.meter.Progress())
				}
			}
		}
	}()
}

func (r *reporter) interval() time.Duration {
	if r.live {
		return liveEvery
	}
	return r.every
}

func (r *reporter) stop() {
	close(r.quit)
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
}
