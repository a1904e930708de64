package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/triage"
)

// memoryCommand adds to a command what all have that read the kernel's memory of one dump.
func (a *app) memoryCommand(cmd *cobra.Command, run func(m *triage.Memory) error) *cobra.Command {
	cmd.GroupID, cmd.Args, cmd.ValidArgsFunction = groupTriage, cobra.ExactArgs(1), cli.Complete(a.completeDump)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withTarget(cmd.Context(), args[0], func(t *target) error { return a.withMemory(cmd.Context(), t, run) })
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

// withMemory runs f on the kernel's memory of a dump, and warns of what could not be read.
func (a *app) withMemory(ctx context.Context, t *target, f func(m *triage.Memory) error) (err error) {
	file, err := t.memory(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	m := triage.Open(file)
	err = f(m)
	for _, line := range m.Unread() {
		a.stdio.Warn("corehaul", "cannot read %s", line)
	}
	if places := a.tellDamage(file); places > 0 {
		err = cli.VerifyFailed(errors.Join(err, fmt.Errorf("%s: damaged in %d place(s)", t.name(), places)))
	}
	return err
}

// nothingRead is the error of a command that has nothing to print. The warnings of withMemory say why.
func nothingRead(what string) error { return fmt.Errorf("no %s can be read from this dump", what) }
