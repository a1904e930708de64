package main

import (
	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/triage/cage"
)

// newTriageChild is the program in the cage: "serve" starts it to make the report of one dump.
func newTriageChild() *cobra.Command {
	return &cobra.Command{
		Use: cage.ChildCommand, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := cage.Child(args); code != 0 {
				return &cli.ExitError{Code: cli.ExitCode(code)} // Child has said why
			}
			return nil
		},
	}
}
