package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/retention"
)

// retentionFile is the limits of retention: the flags of "prune", and the table [retention] of serve's configuration
// file with the same names.
type retentionFile struct {
	MaxAge      cli.DurationValue `toml:"max_age"`
	MaxPerHost  int               `toml:"max_per_host"`
	MaxPerCrash *int              `toml:"max_per_crash"`
	MaxPerPanic *int              `toml:"max_per_panic"` // older name of MaxPerCrash
	MaxTotal    cli.BytesValue    `toml:"max_total"`
	KeepFree    cli.BytesValue    `toml:"keep_free"`
}

// policy checks r and converts it.
func (r *retentionFile) policy() (retention.Policy, error) {
	perCrash := 0
	if r.MaxPerCrash != nil {
		perCrash = *r.MaxPerCrash
	}
	if r.MaxPerHost < 0 || perCrash < 0 {
		return retention.Policy{}, errors.New("retention: a limit must not be negative")
	}
	return retention.Policy{
		MaxAge: time.Duration(r.MaxAge), MaxPerHost: r.MaxPerHost, MaxPerCrash: perCrash,
		MaxTotal: uint64(r.MaxTotal), KeepFree: uint64(r.KeepFree), Title: printk.Title,
	}, nil
}

// negative returns the key of a limit that is negative.
func (r *retentionFile) negative() (key string) {
	if r.MaxPerHost < 0 {
		return "retention.max_per_host"
	}
	return "retention.max_per_crash"
}

// renamed replaces older names of r by the present ones, and adds those that r has to old.
func (r *retentionFile) renamed(old *oldKeys) error {
	was := r.MaxPerPanic
	r.MaxPerPanic = nil
	if was == nil {
		return nil
	}
	var n int
	if err := takeOld(&n, r.MaxPerCrash, was, "max_per_crash", "max_per_panic", old); err != nil {
		return err
	}
	r.MaxPerCrash = &n
	return nil
}

func newPrune(a *app) *cobra.Command {
	var r retentionFile
	var perCrash, perPanic int
	var config string
	var dry, trust bool
	cmd := &cobra.Command{
		Use: "prune", GroupID: groupDumps, Args: cobra.NoArgs,
		Short: "Remove dumps that are too old or too many",
		Long: `Remove dumps until every given limit is met, and print why each dump is removed.
Pinned and arriving dumps are never removed. Age counts from the seal, by the clock of
the receiver. Dumps with the same signature (the kind of crash, and the first functions
of its call trace) are repetitions of one crash. Repetitions are removed first; the
newest complete dump of a crash is removed last. If no removal can meet a limit, only
repetitions are removed for it, and a warning says that the limit is not met. 'serve'
does the same in the background, with the table [retention] of its configuration.
--config FILE takes the limits and the data directory from there; flags override it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.perCrash(cmd.Flags(), &r, perCrash, perPanic); err != nil {
				return cli.Usage(err)
			}
			p, err := a.pruneLimits(cmd.Flags(), &r, config)
			if err != nil {
				return cli.Usage(err)
			}
			return a.prune(cmd.Context(), p, dry, retention.Clock{Now: time.Now(), Trusted: trust})
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&config, "config", "", "take limits and data directory from this configuration of 'serve'")
	flags.Var(&r.MaxAge, "max-age", "how long a dump is kept, such as 90d")
	flags.IntVar(&r.MaxPerHost, "max-per-host", 0, "most dumps that are kept of a host")
	flags.IntVar(&perCrash, "max-per-crash", 0, "most dumps that are kept of a crash")
	flags.IntVar(&perPanic, "max-per-panic", 0, "older name of --max-per-crash")
	flags.Var(&r.MaxTotal, "max-total", "most bytes that all dumps may use together")
	flags.Var(&r.KeepFree, "keep-free", "bytes that must stay free on the disk")
	flags.BoolVar(&dry, "dry-run", false, "only print which dumps would be removed, and why")
	flags.BoolVar(&trust, "trust-clock", false, "remove old dumps even if nothing confirms the clock")
	return cmd
}

// perCrash sets the limit of r that has two flags: a name and an older one.
func (a *app) perCrash(flags *pflag.FlagSet, r *retentionFile, now, before int) error {
	if flags.Changed("max-per-crash") {
		r.MaxPerCrash = &now
	}
	if flags.Changed("max-per-panic") {
		r.MaxPerPanic = &before
		a.stdio.Warn("corehaul", "--max-per-panic is now --max-per-crash; the old name still works")
	}
	return r.renamed(new(oldKeys))
}

// pruneLimits returns the limits of the flags. Limits and the data directory that flags do not set come from the
// configuration file.
func (a *app) pruneLimits(flags *pflag.FlagSet, r *retentionFile, config string) (retention.Policy, error) {
	if config != "" {
		file, err := loadServeFile(config)
		if err != nil {
			return retention.Policy{}, err
		}
		if file.Data != nil && !flags.Changed("data") {
			a.data = *file.Data
		}
		for _, k := range file.old {
			a.stdio.Warn("corehaul", "configuration %s: %s", config, k)
		}
		r.complete(&file.Retention, flags)
	}
	p, err := r.policy()
	if err != nil || p.Limits() {
		return p, err
	}
	if config != "" {
		a.stdio.Warn("corehaul", "configuration %s has no limits in [retention]: 'serve' removes nothing", config)
		return p, nil
	}
	return p, errors.New("give at least one limit: --max-age, --max-per-host, --max-per-crash, --max-total, --keep-free, or --config with a table [retention]")
}

// complete sets limits that flags do not set to those of file.
func (r *retentionFile) complete(file *retentionFile, flags *pflag.FlagSet) {
	take(flags, "max-age", &r.MaxAge, file.MaxAge)
	take(flags, "max-per-host", &r.MaxPerHost, file.MaxPerHost)
	if r.MaxPerCrash == nil {
		r.MaxPerCrash = file.MaxPerCrash
	}
	take(flags, "max-total", &r.MaxTotal, file.MaxTotal)
	take(flags, "keep-free", &r.KeepFree, file.KeepFree)
}

func take[T any](flags *pflag.FlagSet, name string, to *T, value T) {
	if !flags.Changed(name) {
		*to = value
	}
}

func (a *app) prune(ctx context.Context, p retention.Policy, dry bool, clock retention.Clock) error {
	store, err := a.open(ctx, storage.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	plan, err := retention.Look(ctx, store, p, clock)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	if !dry {
		a.noteRegressions(ctx, store)
	}
	rep, err := retention.CarryOut(ctx, store, plan, dry)
	return errors.Join(err, store.Close(), a.printPrune(rep))
}

func (a *app) printPrune(rep *retention.Report) error {
	if a.json {
		return cli.JSON(a.stdio.Out, rep)
	}
	verb := "removed"
	if rep.DryRun {
		verb = "would remove"
	}
	var freed uint64
	for _, d := range rep.Removed {
		freed += d.Bytes
		if _, err := fmt.Fprintf(a.stdio.Out, "%s %s (%s, %s): %s\n", verb, d.Ref, bytesize.Format(d.Bytes), cli.Printable(cli.Clip(d.Panic, titleWidth)), d.Why); err != nil {
			return err
		}
	}
	for _, d := range rep.Kept {
		if _, err := fmt.Fprintf(a.stdio.Out, "kept %s, %s: %s\n", d.Ref, cli.Printable(d.By), d.Why); err != nil {
			return err
		}
	}
	for _, u := range rep.Unmet {
		a.stdio.Warn("corehaul", "%s", u)
	}
	_, err := fmt.Fprintf(a.stdio.Out, "%s %d dumps, %s\n", verb, len(rep.Removed), bytesize.Format(freed))
	return err
}
