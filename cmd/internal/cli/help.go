package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usage is cobra's, with the exit codes at its end. A template of our own would bring in package
// text/template, which calls methods by name: the linker then keeps every method there is, a megabyte of
// them in the sender.
func usage(cmd *cobra.Command) error {
	if err := new(cobra.Command).UsageFunc()(cmd); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStderr(), "\n%s\n", exitHelp)
	return err
}

// describeFlags names each flag's environment variable in its help. Local flags
// only: those of a parent were described there.
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
