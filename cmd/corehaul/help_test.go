package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
)

// TestHelpIsNotIndented finds texts of help whose lines have the indentation of the source.
func TestHelpIsNotIndented(t *testing.T) {
	var check func(*cobra.Command)
	check = func(cmd *cobra.Command) {
		if strings.Contains(cmd.Long, "\n\t") {
			t.Errorf("help of %q has lines that begin with a tab:\n%s", cmd.CommandPath(), cmd.Long)
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(newRoot(cli.Stdio{}))
}
