package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// A trip is one run of a job.
type trip struct {
	job      Job
	dir      string // empty at first
	net      *network
	programs *programs
}

func (b *bench) newTrip(j Job) (*trip, error) {
	t := &trip{job: j, dir: filepath.Join(b.dir, "run"), net: b.networks[j.Link], programs: b.programs}
	return t, os.Mkdir(t.dir, 0o755)
}

// store is a directory of dumps, file a file. Either is where the dump goes.
func (t *trip) store() string { return filepath.Join(t.dir, "store") }
func (t *trip) file() string  { return filepath.Join(t.dir, "vmcore") }

func (t *trip) remove() { _ = os.RemoveAll(t.dir) } // the next one tells that it is not empty

// once runs a job. The disk has nothing to write when it begins.
func (b *bench) once(ctx context.Context, j Job) (*Sample, error) {
	t, err := b.newTrip(j)
	if err != nil {
		return nil, err
	}
	defer t.remove()
	var s *server
	if j.Method.receiver != nil {
		if s, err = j.Method.receiver.start(ctx, t); err != nil {
			return nil, err
		}
	} else if err := os.Mkdir(t.store(), 0o700); err != nil {
		return nil, err
	}
	syscall.Sync()
	sample, err := t.send(ctx)
	if s != nil {
		if settle := j.Method.receiver.settle; err == nil && settle != nil {
			err = settle(ctx, t)
		}
		u, endErr := s.end()
		sample.ReceiverCPU, sample.ReceiverRSS = u.cpu, u.rss
		if err != nil && endErr == nil { // which has what the server said
			endErr = s.failed(errors.New("the receiver of a sender that failed"))
		}
		err = errors.Join(err, endErr)
	}
	if err != nil {
		return nil, err
	}
	file, err := j.Method.stored(t)
	if err == nil {
		sample.Stored, err = diskSpace(file)
	}
	return sample, err
}

// send runs the sender.
func (t *trip) send(ctx context.Context) (*Sample, error) {
	sample := new(Sample)
	argv, err := t.job.Method.send(t)
	if err != nil {
		return sample, err
	}
	if t.job.Bound {
		argv = bind(senderCore, argv)
	}
	before, err := t.net.carried()
	if err != nil {
		return sample, err
	}
	wall, u, err := newMeasured(ctx, filepath.Join(t.dir, "sender.rss"), argv).runIn(t.net.near)
	if err != nil {
		return sample, err
	}
	after, err := t.net.carried()
	if !t.job.Method.Local {
		sample.Wire = float64(after - before)
	}
	sample.Wall, sample.SenderCPU, sample.SenderRSS = wall, u.cpu, u.rss
	return sample, err
}
