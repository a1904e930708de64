// Command corehaul-send sends the dump of a crashed kernel to a corehaul receiver. It runs in the capture kernel, as
// a command or as PID 1, and on any machine that has a vmcore file. See docs/operating.md.
package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/pid1"
)

// name begins every line on standard error.
const name = "corehaul-send"

func main() {
	// In a container, PID 1 may be any command. Therefore the name has to be right, too.
	if os.Getpid() == 1 && filepath.Base(os.Args[0]) == "init" {
		pid1.Main(capture)
	}
	os.Exit(cli.Main(name, run))
}

// run is the whole program; tests call it.
func run(ctx context.Context, stdio cli.Stdio, args []string) error {
	err := cli.Execute(ctx, stdio, newRoot(stdio), args)
	if _, ok := errors.AsType[*config.Error](err); ok {
		return cli.Usage(err)
	}
	return needsRoot(err)
}

func newRoot(stdio cli.Stdio) *cobra.Command {
	root := &cobra.Command{
		Use:   name,
		Short: "Send the dump of a crashed kernel to a corehaul receiver",
		Long: `corehaul-send reads the memory of a crashed kernel from /proc/vmcore in a capture
kernel, or from any vmcore file (ELF, kdump-compressed, flattened). It leaves out the
pages that the dump level excludes, and sends the rest to a receiver. If it is
interrupted, the same command continues with what is missing.`,
	}
	root.AddCommand(newSend(stdio), newPlan(stdio), newInitrd(stdio), newArm(stdio), newDisarm(stdio), newStatus(stdio), newEstimate(stdio),
		newEmbed(stdio), newCapture(stdio), newVersion(stdio))
	return root
}

func newVersion(stdio cli.Stdio) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return cli.JSON(stdio.Out, versionDoc{cli.Version()})
			}
			_, err := stdio.Out.Write([]byte(tool() + "\n"))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// tool names this program and its version.
func tool() string { return name + " " + cli.Version() }
