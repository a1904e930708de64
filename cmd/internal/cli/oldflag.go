package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// nowKey annotates a flag with the name that it has now.
const nowKey = "corehaul_now"

// OldFlag adds the older name of a flag. It sets the same value and is not in the help.
func OldFlag(flags *pflag.FlagSet, was, now string) {
	f := *flags.Lookup(now)
	f.Name, f.Shorthand, f.Hidden = was, "", true
	f.Annotations = map[string][]string{nowKey: {now}}
	flags.AddFlag(&f)
}

// warnOfOldFlags says which flags of the command line have other names now.
func warnOfOldFlags(cmd *cobra.Command) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if now := f.Annotations[nowKey]; len(now) > 0 {
			Stdio{Err: cmd.ErrOrStderr()}.Warn(cmd.Root().Name(), "--%s is now --%s; the old name still works", f.Name, now[0])
		}
	})
}
