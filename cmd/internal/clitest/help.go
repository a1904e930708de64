// Package clitest has the checks that both commands have in common.
package clitest

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// HelpIsNotIndented finds texts of help, of a command or one below it, whose lines have the indentation of the source.
func HelpIsNotIndented(t *testing.T, cmd *cobra.Command) {
	t.Helper()
	if strings.Contains(cmd.Long, "\n\t") {
		t.Errorf("help of %q has lines that begin with a tab:\n%s", cmd.CommandPath(), cmd.Long)
	}
	for _, sub := range cmd.Commands() {
		HelpIsNotIndented(t, sub)
	}
}
