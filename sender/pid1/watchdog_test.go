package pid1

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/sender/config"
)

// fakeDog is a watchdog that notes when it would have reset the machine.
type fakeDog struct {
	after    time.Duration // its timeout; 0: does not tell, and it is 16 s
	fixed    bool          // the timeout cannot be changed
	nowayout bool

	armed bool
	timer *time.Timer
	start time.Time
	bit   time.Duration // after the start
}

func (d *fakeDog) open() *fakeDog {
	d.armed, d.start = true, time.Now()
	d.timer = time.AfterFunc(d.real(), func() { d.bit = time.Since(d.start) })
	return d
}

func (d *fakeDog) real() time.Duration {
	if d.after == 0 {
		return 16 * time.Second
	}
	return d.after
}

func (d *fakeDog) name() string           { return "fake timer" }
func (d *fakeDog) timeout() time.Duration { return d.after }
func (d *fakeDog) locked() bool           { return d.nowayout }

func (d *fakeDog) setTimeout(t time.Duration) error {
	if d.fixed {
		return errors.New("not supported")
	}
	d.after = t
	return d.feed()
}

func (d *fakeDog) feed() error {
	if !d.armed {
		return errors.New("bad file descriptor")
	}
	d.timer.Reset(d.real())
	return nil
}

func (d *fakeDog) disarm() error {
	d.armed = false
	d.timer.Stop()
	return nil
}

// stepper is a job that moves something every so often, for some time, and then hangs.
func stepper(every, until, end time.Duration) Job {
	return func(_ context.Context, env Env) Outcome {
		began := time.Now()
		for time.Since(began) < end {
			time.Sleep(every)
			if time.Since(began) <= until {
				env.Alive()
			}
		}
		return Outcome{Line: "dump complete"}
	}
}

// TestWatchdogBitesTheHungOnly holds both halves of the promise for devices of all kinds:
// no reset while something moves within the limit, a reset at the limit.
func TestWatchdogBitesTheHungOnly(t *testing.T) {
	for _, limit := range []time.Duration{time.Minute, 3 * time.Minute} {
		for _, dev := range []fakeDog{
			{after: 30 * time.Second},
			{after: time.Second},
			{after: 2 * time.Second, fixed: true},
			{after: time.Hour},
			{after: time.Minute, fixed: true},
			{fixed: true},
			{after: 10 * time.Minute, fixed: true},
		} {
			t.Run(fmt.Sprintf("limit %v, timeout %v, fixed %v", limit, dev.after, dev.fixed), func(t *testing.T) {
				conf := fmt.Sprintf("%swatchdog = %q\n", goodConfig, limit)
				patient, hung := dev, dev
				boot(t, &fake{files: newFake(conf).files, dog: &patient}, stepper(limit-6*time.Second, time.Hour, time.Hour))
				if patient.bit != 0 {
					t.Errorf("it reset a machine on which something moved, after %v", patient.bit)
				}
				boot(t, &fake{files: newFake(conf).files, dog: &hung}, stepper(time.Second, 10*time.Minute, time.Hour))
				least := 10*time.Minute + limit - feedEvery
				most := 10*time.Minute + max(limit, hung.real()) + 2*feedEvery // one that does not tell may be slower than taken for
				if hung.bit < least || hung.bit > most {
					t.Errorf("it reset the hung machine after %v, want %v to %v", hung.bit, least, most)
				}
			})
		}
	}
}

// TestWatchdogWhileModulesLoad: the driver is a module itself, and a later one hangs.
func TestWatchdogWhileModulesLoad(t *testing.T) {
	f := newFake(goodConfig)
	f.dog, f.dogModule, f.hang = &fakeDog{after: 30 * time.Second}, "/lib/modules/a.ko", "/lib/modules/b.ko"
	lines := boot(t, f, func(context.Context, Env) Outcome { return Outcome{Line: "dump complete"} })
	if !strings.Contains(strings.Join(lines, "\n"), "no progress for 155 s (loading /lib/modules/b.ko); without progress the watchdog") {
		t.Errorf("it does not say what hangs: %q", lines)
	}
	if limit := config.Default().WatchdogLimit(); f.dog.bit < limit-feedEvery || f.dog.bit > limit+feedEvery {
		t.Errorf("it reset the machine after %v, want about %v", f.dog.bit, limit)
	}
}

// TestWatchdogAfterTheDump holds what it does, and says before the last line, when the dump
// is over.
func TestWatchdogAfterTheDump(t *testing.T) {
	good := func(context.Context, Env) Outcome { return Outcome{Line: "dump complete"} }
	bad := func(context.Context, Env) Outcome { return failed(errors.New("nobody there")) }
	buggy := func(context.Context, Env) Outcome { panic("a bug") }
	for _, tc := range []struct {
		name     string
		job      Job
		after    string
		nowayout bool
		armed    bool
		says     string
	}{
		{"all well", good, "reboot", false, false, "watchdog: off"},
		{"all well, no way out", good, "reboot", true, true, "left on (nowayout)"},
		{"failed", bad, "reboot", false, true, "left on: it resets"},
		{"a bug", buggy, "reboot", false, true, "left on: it resets"},
		{"failed, stays down", bad, "halt", false, false, "watchdog: off"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(strings.Replace(goodConfig, "poweroff", tc.after, 1))
			f.dog = &fakeDog{after: 10 * time.Second, nowayout: tc.nowayout}
			f.rebootTakes = time.Hour
			lines := boot(t, f, tc.job)
			if f.dog.armed != tc.armed || (f.dog.bit > 0) != tc.armed {
				t.Errorf("armed: %v, reset after %v", f.dog.armed, f.dog.bit)
			}
			// The failure was shown for as long as the timeout is, and then it hung in its reboot.
			if tc.armed && f.dog.bit != f.paused+10*time.Second {
				t.Errorf("reset after %v, want %v", f.dog.bit, f.paused+10*time.Second)
			}
			if got := lines[len(lines)-2]; !strings.Contains(got, tc.says) {
				t.Errorf("it says %q, want %q", got, tc.says)
			}
		})
	}
}

func TestWatchdogOff(t *testing.T) {
	f := newFake(goodConfig + "watchdog = \"off\"\n")
	f.dog = &fakeDog{after: 30 * time.Second}
	boot(t, f, func(context.Context, Env) Outcome { return Outcome{Line: "dump complete"} })
	if f.dog.armed {
		t.Error("it was opened")
	}
}

func TestWatchdogThatCannotBeOpened(t *testing.T) {
	f := newFake(goodConfig)
	f.dogErr = errors.New("device or resource busy")
	lines := boot(t, f, func(_ context.Context, env Env) Outcome {
		env.Alive()
		return Outcome{Line: "dump complete"}
	})
	if n := strings.Count(strings.Join(lines, "\n"), "warning: watchdog: device or resource busy"); n != 1 {
		t.Errorf("%d warnings, want one: %q", n, lines)
	}
}
