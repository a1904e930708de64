package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageTemplate is cobra's, with the exit codes at its end.
var usageTemplate = strings.TrimRight((&cobra.Command{}).UsageTemplate(), "\n") + "\n\n" + exitHelp + "\n"

// describeFlags names each flag's environment variable in its help. Local flags
// only: those of a parent were described there.
func describeFlags(cmd *cobra.Command) {
	describe := func(f *pflag.Flag) {
		suffix := " [$" + EnvName(f.Name) + "]"
		if takesEnv(f) && !strings.HasSuffix(f.Usage, suffix) {
			f.Usage += suffix
		}
	}
	cmd.Flags().VisitAll(describe)
	cmd.PersistentFlags().VisitAll(describe)
}
