package pid1

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// The driver's default timeout is kept if it is between shortTimeout and half of the configured limit. Otherwise it is
	// set to usualTimeout.
	shortTimeout = 10 * time.Second
	usualTimeout = 30 * time.Second
	// feedEvery is the longest time between two checks whether to feed the watchdog.
	feedEvery = 5 * time.Second
)

// device is a watchdog, as Documentation/watchdog/watchdog-api.rst in the kernel tree
// describes it. It runs from the time when it was opened.
type device interface {
	// name returns the driver's name for it.
	name() string
	// timeout returns after how long without feed it resets the machine, 0 if the driver does not say.
	timeout() time.Duration
	// setTimeout changes the timeout, if the driver can.
	setTimeout(d time.Duration) error
	feed() error
	// locked reports whether the driver never stops it (nowayout).
	locked() bool
	// disarm stops it for good.
	disarm() error
}

// watchdog feeds a device while there is progress. The machine is reset after limit without progress, and not before.
// Therefore feeding stops when the rest of limit is the device's own timeout. If the whole machine hangs, the device
// resets it after that timeout.
type watchdog struct {
	dev     device
	limit   time.Duration
	timeout time.Duration
	log     func(string, ...any)
	doing   func() string
	start   time.Time
	moved   atomic.Int64 // time of the last progress, in nanoseconds after start
	always  atomic.Bool  // feed without progress too
	over    sync.Once
	quit    chan struct{}
	done    chan struct{}
}

// startWatchdog starts to feed dev, which was just opened. doing returns the current step for warnings.
func startWatchdog(dev device, limit time.Duration, log func(string, ...any), doing func() string) *watchdog {
	w := &watchdog{
		dev: dev, limit: limit, log: log, doing: doing, start: time.Now(),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	w.timeout = dev.timeout()
	if w.timeout < shortTimeout || w.timeout > limit/2 {
		if err := dev.setTimeout(usualTimeout); err != nil {
			log("warning: watchdog: it keeps its timeout of %v: %v", w.timeout, err)
		}
		w.timeout = dev.timeout()
	}
	if w.timeout <= 0 {
		w.timeout = shortTimeout // unknown, so assume a short one
	}
	log("watchdog: %s, %v; it resets the machine after %v without progress", dev.name(), w.timeout, max(limit, w.timeout))
	go w.run()
	return w
}

// alive notes progress. It is safe for concurrent use, and w may be nil.
func (w *watchdog) alive() {
	if w != nil {
		w.moved.Store(int64(time.Since(w.start)))
	}
}

func (w *watchdog) run() {
	defer close(w.done)
	every := min(w.timeout/4, feedEvery)
	tick := time.NewTicker(every)
	defer tick.Stop()
	// The last feed must not be too early, because progress may come until limit.
	enough := w.limit - w.timeout + every
	fed, starving := w.feed(0), false
	for {
		select {
		case <-w.quit:
			if w.always.Load() {
				w.feed(0) // leaves a whole timeout for the reboot
			}
			return
		case <-tick.C:
		}
		now := time.Since(w.start)
		moved := time.Duration(w.moved.Load())
		switch {
		case w.always.Load(), moved > fed, now-moved < enough:
			fed, starving = w.feed(now), false
		case !starving:
			starving = true
			w.log("warning: no progress for %.0f s (%s); without progress the watchdog resets the machine in %.0f s",
				(now - moved).Seconds(), w.doing(), (fed + w.timeout - now).Seconds())
		}
	}
}

// feed returns now.
func (w *watchdog) feed(now time.Duration) time.Duration {
	if err := w.dev.feed(); err != nil {
		w.log("warning: watchdog: %v", err)
	}
	return now
}

// release stops the watchdog after the dump if stop is set and the driver allows it. Otherwise the watchdog stays on and is
// fed until end, so that it resets a machine that hangs in its reboot.
func (w *watchdog) release(stop bool) {
	if w == nil {
		return
	}
	if stop && !w.dev.locked() {
		w.end()
		if err := w.dev.disarm(); err != nil {
			w.log("warning: watchdog: %v; it may reset the machine in %v", err, w.timeout)
			return
		}
		w.log("watchdog: off")
		return
	}
	w.always.Store(true)
	why := ""
	if stop {
		why = " (nowayout)"
	}
	w.log("watchdog: left on%s: it resets a machine that has not rebooted within %v", why, w.timeout)
}

// keep feeds the watchdog until end, while people look at the machine. It does not stop it: a driver that does not tell whether it can
// be stopped (see locked) may go on, and would reset the machine under their hands.
func (w *watchdog) keep() {
	if w == nil {
		return
	}
	w.always.Store(true)
	w.log("watchdog: left on and fed until the reboot; it resets a machine that has not rebooted within %v then", w.timeout)
}

// end stops feeding.
func (w *watchdog) end() {
	if w == nil {
		return
	}
	w.over.Do(func() {
		close(w.quit)
		<-w.done
	})
}

// startWatchdog opens the watchdog if there is one. It is called again after each module, which may bring one.
func (r *runner) startWatchdog() {
	limit := r.cfg.WatchdogLimit()
	if limit == 0 || r.dog.Load() != nil {
		return
	}
	dev, err := r.sys.watchdog()
	switch {
	case err != nil && !r.dogFailed:
		r.dogFailed = true
		r.console.Printf("warning: watchdog: %v", err)
	case dev != nil:
		r.dog.Store(startWatchdog(dev, limit, r.console.Printf, r.doing))
	}
}
