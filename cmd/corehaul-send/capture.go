package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender"
	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/pid1"
)

// capture sends the dump from a capture kernel in which this program is PID 1.
func capture(ctx context.Context, env pid1.Env) pid1.Outcome {
	tuneMemory(defaultWorkers())
	res, err := captureDump(ctx, env)
	env.Console.Printf("peak memory %s", bytesize.Format(peakRSS()))
	if err != nil {
		return pid1.Outcome{Line: fmt.Sprintf("dump failed: %v", err), Failed: true}
	}
	return pid1.Outcome{Line: res.String(), Failed: !stored(res, env.Config.Collect == "log"), State: string(res.State), Target: res.Target}
}

// stored reports whether the receiver stored at least a part of what was wanted.
func stored(res *sender.Result, logOnly bool) bool {
	return res.State != protocol.StateLogOnly || logOnly || res.Declined
}

func captureDump(ctx context.Context, env pid1.Env) (*sender.Result, error) {
	c := env.Config
	dial, to, wrong := dialer(c.Keys(), c.To, sender.OpenOnDisk(env.Mount), func(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
		return env.Lines.Dial(ctx, d, network, addr)
	})
	for _, err := range wrong {
		env.Console.Printf("warning: %v; left out", err)
	}
	if len(to) == 0 {
		return nil, wrong[0]
	}
	src, err := sender.Open(sender.VMCore)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: this kernel was not started by the crash of another one", err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = src.Close() }()
	u := src.Utsname()
	env.Console.Printf("dump of %s, Linux %s, %s of RAM", u.Nodename, u.Release, bytesize.Format(src.RAMBytes()))
	for _, w := range src.Warnings() {
		env.Console.Printf("warning: %s", w)
	}
	if err := awaitNetwork(ctx, env, to); err != nil {
		return nil, err
	}
	meter := new(sender.Meter)
	opts := sender.Options{
		To: to, Dial: onNetwork(env, dial), Final: func(target string) bool { return !config.NeedsNetwork(target) }, Level: pages.DumpLevel(c.Level),
		Encoding: c.Encoding, LogOnly: c.Collect == "log", Patience: time.Duration(c.Patience), Stall: time.Duration(c.Stall), Stubborn: true,
		Workers: defaultWorkers(), Tool: tool(), MachineID: sender.MachineID(), Meter: meter, Log: env.Console.Printf,
		Alive: env.Alive, Again: env.Again,
	}
	if d := time.Duration(c.Deadline); d > 0 {
		opts.Deadline = env.Start.Add(d)
	}
	stop := pace(env.Console, meter, time.Duration(c.Progress))
	defer stop()
	return sender.Send(ctx, src, opts)
}

// networkPatience is how long the network may take if there is a disk to write to. Switches with spanning trees take half a minute.
const networkPatience = time.Minute

// awaitNetwork waits for the network, if the first target needs it. Without a network, there may still be a disk.
func awaitNetwork(ctx context.Context, env pid1.Env, to []string) error {
	disk := slices.ContainsFunc(to, func(target string) bool { return !config.NeedsNetwork(target) })
	switch {
	case !disk:
		return env.Network(ctx)
	case !config.NeedsNetwork(to[0]):
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, networkPatience)
	defer cancel()
	if err := env.Network(ctx); err != nil {
		env.Console.Printf("warning: no network yet: %v", err)
	}
	return nil
}

// onNetwork returns a Dialer that waits for the network before it connects to a target that needs it. If somebody answered who
// is not the target, it lets another link be tried first: two networks may use the same addresses.
func onNetwork(env pid1.Env, dial sender.Dialer) sender.Dialer {
	return func(ctx context.Context, target string) (net.Conn, error) {
		if !config.NeedsNetwork(target) {
			return dial(ctx, target)
		}
		if err := env.Network(ctx); err != nil {
			return nil, fmt.Errorf("no network: %w", err)
		}
		nc, err := dial(ctx, target)
		if u, uerr := url.Parse(target); err != nil && uerr == nil {
			env.Lines.Doubt(u.Hostname())
		}
		return nc, err
	}
}

// pace prints the progress at intervals until the returned function is called.
func pace(console *pid1.Console, meter *sender.Meter, every time.Duration) (stop func()) {
	if every <= 0 {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-quit:
				return
			case <-t.C:
				console.Printf("%s", meter.Progress())
			}
		}
	}()
	return func() { close(quit); <-done }
}
