package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// Options say how jobs are run.
type Options struct {
	// Bin is the directory of corehaul's programs. Program is this program, see ProxyCommand.
	Bin, Program string
	Jobs         []Job
	// Rounds is how often each job is measured.
	Rounds int
	// Log gets a line for each run.
	Log io.Writer
}

// A bench is what jobs share.
type bench struct {
	Options
	dir      string // on the disk of the lab's cache
	programs *programs
	networks map[string]*network
	idle     map[string]float64
}

// Run runs all jobs. A job whose makedumpfile is not there is left out. A run that fails ends everything.
func Run(ctx context.Context, o Options) (*Report, error) {
	tmp := filepath.Join(lab.CacheDir(), "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(tmp, "bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the lab removes what is left
	b := &bench{Options: o, dir: dir, networks: map[string]*network{}, idle: map[string]float64{}}
	defer b.close()
	if b.programs, err = findPrograms(ctx, o.Bin, dir); err != nil {
		return nil, err
	}
	return b.run(ctx)
}

func (b *bench) run(ctx context.Context) (*Report, error) {
	report := &Report{Machine: machineFacts(ctx, b.programs), Rounds: b.Rounds, Idle: b.idle}
	jobs := b.possible()
	for _, j := range jobs {
		if err := b.prepare(ctx, j, report); err != nil {
			return nil, err
		}
		report.Rows = append(report.Rows, Row{Cell: j.Cell, Method: j.Method.Name, Peer: j.Method.Peer, Local: j.Method.Local})
	}
	if _, err := b.round(ctx, 0, jobs); err != nil { // it warms the caches up
		return nil, err
	}
	for round := range b.Rounds {
		samples, err := b.round(ctx, round+1, jobs)
		if err != nil {
			return nil, err
		}
		for i := range report.Rows {
			report.Rows[i].Runs = append(report.Rows[i].Runs, samples[i])
		}
	}
	for i := range report.Rows {
		report.Rows[i].summarize()
	}
	return report, nil
}

// possible are the jobs without those whose makedumpfile is not there.
func (b *bench) possible() []Job {
	var jobs []Job
	for _, j := range b.Jobs {
		if _, err := b.programs.makedumpfileWith(j.Method.compressor); j.Method.compressor != "" && err != nil {
			b.logf("left out: %s: %s: %v", j.Cell, j.Method.Name, err)
			continue
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// round runs each job once.
func (b *bench) round(ctx context.Context, round int, jobs []Job) ([]Sample, error) {
	start := time.Now()
	var samples []Sample
	for i, j := range jobs {
		s, err := b.once(ctx, j)
		switch {
		case ctx.Err() != nil: // the programs were killed, and what they say does not matter
			return nil, fmt.Errorf("interrupted: %w", ctx.Err())
		case err != nil:
			return nil, fmt.Errorf("%s: %s: %w", j.Cell, j.Method.Name, err)
		}
		b.logf("round %d/%d, %d/%d: %s: %s: %.2f s", round, b.Rounds, i+1, len(jobs), j.Cell, j.Method.Name, s.Wall)
		samples = append(samples, *s)
	}
	took := time.Since(start)
	b.logf("round %d took %s; all others together about %s", round, took.Round(time.Second), (took * time.Duration(b.Rounds-round)).Round(time.Second))
	return samples, nil
}

func (b *bench) logf(format string, args ...any) {
	_, _ = fmt.Fprintf(b.Log, format+"\n", args...) // progress only
}

// prepare makes the link of a job, measures it, and measures what its server takes for nothing.
func (b *bench) prepare(ctx context.Context, j Job, report *Report) error {
	if b.networks[j.Link] == nil {
		c, err := b.openLink(ctx, j.Link)
		if err != nil {
			return err
		}
		report.Links = append(report.Links, *c)
		b.logf("link %s: %.0f Mbit/s, %.2f ms there and back", c.Link, c.Throughput/1e6, c.RTT*1e3)
	}
	r := j.Method.receiver
	if r == nil {
		return nil
	}
	if _, ok := b.idle[r.name]; ok {
		return nil
	}
	u, err := b.idleServer(ctx, j)
	b.idle[r.name] = u.cpu
	return err
}

func (b *bench) openLink(ctx context.Context, name string) (*Calibration, error) {
	i := slices.IndexFunc(Links, func(l Link) bool { return l.Name == name })
	n, err := Links[i].open(ctx, b.Program)
	if err != nil {
		return nil, err
	}
	b.networks[name] = n
	return n.calibrate(ctx)
}

// idleServer starts and stops a server to which nobody sends.
func (b *bench) idleServer(ctx context.Context, j Job) (u usage, err error) {
	t, err := b.newTrip(j)
	if err != nil {
		return u, err
	}
	defer t.remove()
	s, err := j.Method.receiver.start(ctx, t)
	if err != nil {
		return u, err
	}
	return s.end()
}

func (b *bench) close() {
	for _, n := range b.networks {
		n.close()
	}
}
