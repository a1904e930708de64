package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usage prints cobra's usage with the exit codes at its end. It uses no template: package text/template calls methods
// by name, so the linker would keep every method, a megabyte in the sender.
func usage(cmd *cobra.Command) error {
	if err := new(cobra.Command).UsageFunc()(cmd); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStderr(), "\n%s\n", exitHelp)
	return err
}

// help prints what a command does and its usage, in lines that fit the terminal.
func help(cmd *cobra.Command, _ []string) {
	text := strings.TrimRight(cmp.Or(cmd.Long, cmd.Short), " \n") + "\n"
	if cmd.Runnable() || cmd.HasSubCommands() {
		text += "\n" + cmd.UsageString()
	}
	out := cmd.OutOrStdout()
	_, _ = io.WriteString(out, fitText(text, Width(out))) // as cobra, which has no error for it
}

// describeFlags adds to the help of each local flag its environment variable. Flags of a parent have theirs already.
func describeFlags(cmd *cobra.Command) {
	describe := func(f *pflag.Flag) {
		suffix := " [$" + EnvName(f.Name) + "]"
		if takesEnv(cmd, f) && !strings.HasSuffix(f.Usage, suffix) {
			f.Usage += suffix
		}
	}
	cmd.Flags().VisitAll(describe)
	cmd.PersistentFlags().VisitAll(describe)
}
