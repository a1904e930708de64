package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/cmd/internal/cli"
)

// tellSystemd tells the service manager the states of a service of Type=notify (sd_notify(3)). Without one, it does nothing.
func tellSystemd(states ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// statusLine is the state that "systemctl status" shows.
func statusLine(text string) string { return "STATUS=" + cli.Printable(text) }

// tellReloading tells systemd that the configuration is read, and returns what tells that this has ended, and how. systemd wants the
// time, to know to which request the answer belongs (Type=notify-reload).
func tellReloading(log *slog.Logger) (ended func(status string)) {
	warn := func(err error) {
		if err != nil {
			log.Warn("systemd does not know of the reload", "error", err)
		}
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		warn(err)
	}
	warn(tellSystemd(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000)))
	return func(status string) { warn(tellSystemd(daemon.SdNotifyReady, statusLine(status))) }
}

// tellStopping tells systemd that the server stops, when ctx is done or the returned function is called.
func tellStopping(ctx context.Context, log *slog.Logger) (tell func()) {
	tell = sync.OnceFunc(func() {
		if err := tellSystemd(daemon.SdNotifyStopping, statusLine("stopping: sessions commit what has arrived")); err != nil {
			log.Warn("systemd does not know that the server stops", "error", err)
		}
	})
	context.AfterFunc(ctx, tell)
	return tell
}

// beatsPerTimeout is how often the watchdog is fed in the time after which it bites.
const beatsPerTimeout = 4

// feedWatchdog tells systemd's watchdog, if the unit has one, that the server is alive, as long as it is: its loops accept connections, and
// sessions can begin. A server that hangs is ended by systemd, with the stacks of all goroutines in its log, and started again.
func (s *service) feedWatchdog(ctx context.Context) error {
	timeout, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("the watchdog of systemd is not fed", "error", err)
	}
	if timeout == 0 {
		return nil
	}
	tick := time.NewTicker(timeout / beatsPerTimeout)
	defer tick.Stop()
	for ctx.Err() == nil {
		s.beat(ctx, timeout/beatsPerTimeout)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// beat feeds the watchdog if the server answers in time.
func (s *service) beat(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := s.server.Alive(ctx)
	switch {
	case err == nil:
		err = tellSystemd(daemon.SdNotifyWatchdog)
	case errors.Is(context.Cause(ctx), context.Canceled): // the server stops
		return
	}
	if err != nil {
		s.log.Error("the watchdog of systemd was not fed", "error", err)
	}
}
