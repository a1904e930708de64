package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/groups"
	"github.com/corehaul/corehaul/storage/reports"
	"github.com/corehaul/corehaul/storage/retention"
	"github.com/corehaul/corehaul/storage/scrub"
	"github.com/corehaul/corehaul/triage/cage"
)

// keepFlags say how "serve" reports on, checks and removes stored dumps: flags, and keys that only the configuration file has.
type keepFlags struct {
	reportJobs     int
	reportRenewals int
	scrubRate      cli.BytesValue
	scrubEvery     cli.DurationValue
}

func (k *keepFlags) add(flags *pflag.FlagSet) {
	k.scrubRate, k.scrubEvery = scrub.DefaultRate, cli.DurationValue(scrub.DefaultEvery)
	flags.IntVar(&k.reportJobs, "report-jobs", 1, "how many dumps are read at the same time to report what crashed; 0 makes no reports")
	flags.IntVar(&k.reportRenewals, "report-renewals", reports.DefaultRenewals, "how many reports of older versions of this program are made again in an hour; 0 keeps them")
	flags.Var(&k.scrubRate, "scrub-rate", "bytes per second at which stored dumps are verified again; 0 turns it off")
	flags.Var(&k.scrubEvery, "scrub-every", "how often each stored dump is verified again")
}

// keepValues returns the values that the file has for these flags.
func (c *serveFile) keepValues() map[string]string {
	values := map[string]string{}
	for name, s := range map[string]*string{"scrub-rate": c.ScrubRate, "scrub-every": c.ScrubEvery} {
		if s != nil {
			values[name] = *s
		}
	}
	for name, n := range map[string]*int{"report-jobs": c.ReportJobs, "report-renewals": c.ReportRenewals} {
		if n != nil {
			values[name] = fmt.Sprint(*n)
		}
	}
	return values
}

// problems returns what is wrong with the flags, by key.
func (k *keepFlags) problems() map[string]error {
	found := map[string]error{}
	if k.scrubRate > 0 && k.scrubEvery == 0 {
		found["scrub_every"] = errors.New("scrub-every is 0; set scrub-rate to 0 to verify nothing")
	}
	for key, n := range map[string]int{"report_jobs": k.reportJobs, "report_renewals": k.reportRenewals} {
		if n < 0 {
			found[key] = errors.New("report-jobs and report-renewals must not be negative; 0 turns them off")
		}
	}
	return found
}

// start runs reports, if r is not nil, what tells of new crashes, scrub and keeper in the background until stop is called. state is DATA/state.
func (k *keepFlags) start(ctx context.Context, store storage.Store, state string, r *reporter, keeper *retention.Runner, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	news := &groups.News{Store: store, Dir: state, Log: log}
	wg.Go(func() { news.Run(ctx) })
	if r != nil {
		wg.Go(func() { r.run(ctx) })
	}
	wg.Go(func() { keeper.Run(ctx) })
	if k.scrubRate > 0 {
		s := &scrub.Scrubber{Store: store, Log: log, Rate: uint64(k.scrubRate), Every: time.Duration(k.scrubEvery)}
		wg.Go(func() { s.Run(ctx) })
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// reporter makes the reports of dumps.
type reporter struct {
	*reports.Runner

	cage *cage.Cage
}

// run makes reports until ctx is done.
func (r *reporter) run(ctx context.Context) {
	if err := r.cage.Check(ctx); err != nil && ctx.Err() == nil {
		r.Log.Error("reports: trying again with the next dump", "error", err)
	}
	r.Run(ctx)
}

// reporter returns what makes the reports of dumps, nil if nothing does. Their bytes count as those of the hosts' logs do.
func (k *keepFlags) reporter(store storage.Store, room *admission.Room, log *slog.Logger) *reporter {
	if k.reportJobs == 0 {
		return nil
	}
	maker := cage.New(cage.Self, cage.Limits{}, log)
	return &reporter{cage: maker, Runner: &reports.Runner{
		Store: store, Maker: maker, Log: log, Program: "corehaul " + cli.Version(),
		Jobs: k.reportJobs, Renewals: k.reportRenewals,
		Charge: func(ctx context.Context, host string, n uint64) error {
			early := room.Account(host).NewEarly()
			if err := early.Charge(ctx, n); err != nil {
				return err
			}
			early.Stored(n)
			return nil
		},
	}}
}

// writable returns an error if the store takes no new files, so that serve fails at its start and not at the first
// dump. A full disk is no error: senders wait for space.
func writable(ctx context.Context, store storage.Store) error {
	err := store.CheckWritable(ctx)
	if err == nil || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil
	}
	return cli.WithHint(fmt.Errorf("the data directory cannot be written: %w", err), "make it writable for the user that 'serve' runs as, or mount it read-write")
}
