package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/sender"
	"github.com/corehaul/corehaul/sender/arm"
	"github.com/corehaul/corehaul/sender/config"
)

// probeLimit bounds how long status waits for a target. It is that of the sender for one connection.
const probeLimit = 15 * time.Second

func newStatus(stdio cli.Stdio) *cobra.Command {
	var asJSON, offline bool
	cmd := &cobra.Command{
		Use: "status", Short: "Say whether a crash of this machine would give a dump, and what to do",
		Long: `Compares the loaded image with the running kernel, the configuration and its keys, and the
devices of this machine, and asks each target whether it answers. For each finding it says
what is wrong, where, and what to do.

Exit code: 0 ready (there may be notes), 3 armed but something is wrong, 1 not armed.

With --json it prints one document: state (ready, doubtful, not-armed), kernel, reserved and
needed (bytes), loaded (what was packed, or null), sysctls, findings (code, problem, what, do,
rearm: whether arming again is all it takes).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var ask arm.Probe
			if !offline {
				ask = probe
			}
			s, err := arm.Look(cmd.Context(), "/", ways, ask)
			if err != nil {
				return err
			}
			show := showStatus
			if asJSON {
				show = func(w io.Writer, s *arm.Status) error { return cli.JSON(w, s) }
			}
			if err := show(stdio.Out, s); err != nil {
				return err
			}
			return stateCode(s.State)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().BoolVar(&offline, "offline", false, "do not ask the targets")
	return cmd
}

// needsRoot adds a hint to the error of a command that changes or reads what only root may.
func needsRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) && len(cli.Hints(err)) == 0 {
		return cli.WithHint(err, "run it as root: put sudo before it")
	}
	return err
}

// stateCode returns the error with the exit code of a state, nil if it is ready.
func stateCode(s arm.State) error {
	switch s {
	case arm.Ready:
		return nil
	case arm.Doubtful:
		return &cli.ExitError{Code: cli.ExitPartial}
	}
	return &cli.ExitError{Code: cli.ExitFailure}
}

// probe connects to a target as the capture kernel would, and closes the connection.
func probe(ctx context.Context, c *config.File, to string) error {
	dial, good, wrong := dialer(c.Keys(), []string{to}, sender.OpenMounted, nil)
	if len(good) == 0 {
		return wrong[0]
	}
	if !config.NeedsNetwork(to) {
		return nil // the capture kernel mounts it; arm has looked for it
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	conn, err := dial(ctx, to)
	if err != nil {
		return err
	}
	return conn.Close()
}

func showStatus(w io.Writer, s *arm.Status) error {
	words := map[arm.State]string{arm.Ready: "ready", arm.Doubtful: "armed, but something is wrong", arm.NotArmed: "not armed"}
	if _, err := fmt.Fprintln(w, words[s.State]); err != nil {
		return err
	}
	t := cli.NewTable(w)
	t.Row("  running kernel", s.Kernel)
	reserved := bytesize.Format(s.Reserved)
	if s.Needed > 0 {
		reserved += ", needed about " + bytesize.Format(s.Needed)
	}
	t.Row("  reserved", reserved)
	if r := s.Loaded; r != nil {
		t.Row("  capture kernel", r.Kernel.Path+", "+r.Kernel.Release)
		t.Row("  image", fmt.Sprintf("%s, packed %s with %d modules from %s", bytesize.Format(r.Packed), cli.Time(r.Time), len(r.Modules), r.Config.Path))
		for _, to := range r.To {
			t.Row("  sends to", to)
		}
	}
	for _, v := range s.Sysctls {
		t.Row("  "+v.Name, v.Value)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range s.Findings {
		kind := "note"
		if f.Problem {
			kind = "problem"
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n  to do: %s\n", kind, cli.Printable(f.What), cli.Printable(f.Do)); err != nil {
			return err
		}
	}
	return nil
}
