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
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/retention"
	"github.com/corehaul/corehaul/storage/scrub"
)

// keepFlags say how "serve" checks and removes stored dumps: flags, and keys that only the configuration file has.
type keepFlags struct {
	scrubRate  cli.BytesValue
	scrubEvery ageValue
	policy     retention.Policy
}

func (k *keepFlags) add(flags *pflag.FlagSet) {
	k.scrubRate, k.scrubEvery = scrub.DefaultRate, ageValue(scrub.DefaultEvery)
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
	return values
}

// load adds the keys that only the file has, and checks everything.
func (k *keepFlags) load(file *serveFile) (err error) {
	if k.scrubRate > 0 && k.scrubEvery == 0 {
		return errors.New("scrub-every is 0; set scrub-rate to 0 to verify nothing")
	}
	if file != nil {
		k.policy, err = file.Retention.policy()
	}
	return err
}

// start runs scrub and retention in the background until stop is called.
func (k *keepFlags) start(ctx context.Context, store storage.Store, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if k.policy.Limits() {
		r := &retention.Runner{Store: store, Policy: k.policy, Log: log}
		wg.Go(func() { r.Run(ctx) })
	}
	if k.scrubRate > 0 {
		s := &scrub.Scrubber{Store: store, Log: log, Rate: uint64(k.scrubRate), Every: time.Duration(k.scrubEvery)}
		wg.Go(func() { s.Run(ctx) })
	}
	return func() {
		cancel()
		wg.Wait()
	}
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
