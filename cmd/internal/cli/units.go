package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/corehaul/corehaul/internal/bytesize"
)

// spelledBytes is a BytesValue that knows how it was written.
type spelledBytes struct {
	*BytesValue

	text string
}

// Set implements pflag.Value.
func (b *spelledBytes) Set(s string) error {
	b.text = s
	return b.BytesValue.Set(s)
}

// WarnOfSpelling makes the commands below root warn of flags that are written in an older way: by an older name (see OldFlag), or with
// decimal units. A program without such flags does without the code.
func WarnOfSpelling(root *cobra.Command) {
	walk(root, func(cmd *cobra.Command) {
		if cmd.RunE == nil {
			return
		}
		rememberSpelling(cmd)
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			warnOfUnits(cmd)
			warnOfOldFlags(cmd)
			return run(cmd, args)
		}
	})
}

// rememberSpelling makes the flags of cmd that hold bytes know how they are written.
func rememberSpelling(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if b, ok := f.Value.(*BytesValue); ok {
			f.Value = &spelledBytes{BytesValue: b}
		}
	})
}

// warnOfUnits warns of sizes that are written with decimal units: they are read as binary ones.
func warnOfUnits(cmd *cobra.Command) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		b, ok := f.Value.(*spelledBytes)
		if !ok {
			return
		}
		if now, is := bytesize.Binary(b.text); is {
			Stdio{Err: cmd.ErrOrStderr()}.Warn(cmd.Root().Name(), "--%s %s counts as %s: all units are binary; write %s", f.Name, b.text, now, now)
		}
	})
}
