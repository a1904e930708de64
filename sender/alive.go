package sender

import (
	"context"
	"time"
)

// signEvery is the time between two checks for progress.
const signEvery = time.Second

// lifeSigns are counters that change while a sender is not hung: reads of the dump that returned, steps of the job, and
// bytes from the receiver. The latter count only while the sender waits for the receiver.
type lifeSigns struct{ reads, steps, heard uint64 }

func (j *job) lifeSigns(last lifeSigns) lifeSigns {
	now := lifeSigns{reads: j.src.image.reads.Load(), heard: last.heard}
	steps, heard := j.meter.signs()
	now.steps = steps
	if j.stall.running() {
		now.heard = heard
	}
	return now
}

// watchAlive calls Options.Alive while there are signs of life, until ctx is done.
func (j *job) watchAlive(ctx context.Context) {
	tick := time.NewTicker(signEvery)
	defer tick.Stop()
	var last lifeSigns
	for {
		if now := j.lifeSigns(last); now != last {
			last = now
			j.opts.Alive()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
