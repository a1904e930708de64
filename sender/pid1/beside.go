package pid1

import (
	"context"
	"os"
	"time"
)

// Beside runs job as a program of another capture system, such as kdump's, which has mounted /proc, /sys, /dev and /run. If the dump is
// stored, it ends the machine as configured, like Main, and does not return, unless the kernel refuses to end. Otherwise it returns how the
// dump failed, and the other system goes on: the watchdog is off then, and addresses of the network stay. When ctx is done, the job ends early.
func Beside(ctx context.Context, job Job) Outcome {
	r := &runner{sys: beside{}, job: job, start: time.Now(), console: NewConsole(os.Stdout)}
	return r.beside(ctx)
}

func (r *runner) beside(ctx context.Context) Outcome {
	out := r.result(ctx)
	if out.Failed {
		r.dog.Load().release(true)
	} else {
		r.finish(out)
	}
	return out
}

// beside is the machine of a kernel whose system somebody else has set up.
type beside struct{ linux }

func (beside) mount() []error { return nil }

// watchdog does not open one that never stops, because it would reset the machine while the other system saves the dump. Until somebody opens
// it, the kernel feeds one that the firmware has started.
func (b beside) watchdog() (device, error) {
	if neverStops() {
		return nil, nil // as if there were none
	}
	return b.linux.watchdog()
}
