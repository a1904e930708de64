package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/sender/arm"
)

func newDisarm(stdio cli.Stdio) *cobra.Command {
	var replace, asJSON bool
	cmd := &cobra.Command{
		Use: "disarm", Short: "Unload the capture kernel of this machine",
		Long: `Unloads the image that 'corehaul-send arm' has loaded, and removes the record of it. Nothing of
it stays. A crash then gives no dump. The reserved memory stays reserved.

An image that another program has loaded stays unless --replace is given.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := arm.Disarm("/", replace); err != nil {
				return err
			}
			return say(stdio, asJSON, armedDoc{Result: resultDisarmed}, func() error {
				_, err := fmt.Fprintln(stdio.Out, "disarmed")
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().BoolVar(&replace, "replace", false, "unload also what another program has loaded")
	return cmd
}
