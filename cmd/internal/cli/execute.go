//go:build !manpages

package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// Execute prepares root (see prepare) and runs it with args. An error of cobra, before the command's own code runs,
// is a usage error. Report prints the error as JSON if the command line asks for JSON.
func Execute(ctx context.Context, stdio Stdio, root *cobra.Command, args []string) error {
	cmd, err := execute(ctx, stdio, root, args)
	if err != nil && asksJSON(cmd, args) {
		return &jsonError{err}
	}
	return err
}

func execute(ctx context.Context, stdio Stdio, root *cobra.Command, args []string) (*cobra.Command, error) {
	ran := false
	prepare(root, &ran)
	root.SetIn(stdio.In)
	root.SetOut(stdio.Out)
	root.SetErr(stdio.Err)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !ran {
		var exit *ExitError
		if errors.As(err, &exit) {
			return cmd, err
		}
		return cmd, WithHint(Usage(plain(err)), fmt.Sprintf("'%s --help' shows how to use it", cmd.CommandPath()))
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return cmd, &ExitError{Code: ExitInterrupted, Err: errors.New("interrupted")}
	}
	return cmd, err
}
