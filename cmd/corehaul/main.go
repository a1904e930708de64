// Command corehaul receives the dumps of crashed machines, stores, lists, verifies and exports them. See
// docs/operating.md.
package main

import (
	"context"
	"os"

	"github.com/corehaul/corehaul/cmd/internal/cli"
)

func main() { os.Exit(cli.Main("corehaul", run)) }

// run is the whole program; tests call it.
func run(ctx context.Context, stdio cli.Stdio, args []string) error {
	return denied(cli.Execute(ctx, stdio, newRoot(stdio), args))
}
