package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/storage"
)

func newRm(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm ID...", GroupID: groupDumps, Args: cobra.MinimumNArgs(1), ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Remove dumps from the store",
		Long: `Remove dumps from the store. A name that later stands for another dump, that of a host or
"latest", removes nothing: the error says which dump it names now.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			noted := false
			return a.eachDump(cmd.Context(), args, "removed", true, func(s storage.Store, ref storage.Ref) error {
				if !noted {
					a.noteRegressions(cmd.Context(), s)
					noted = true
				}
				return removeError(s.Remove(cmd.Context(), ref, storage.RemoveOptions{Force: force}))
			})
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also remove dumps that are still arriving; pinned dumps are never removed")
	return cmd
}

func removeError(err error) error {
	if errors.Is(err, storage.ErrArriving) {
		return cli.WithHint(err, "use --force to remove it anyway")
	}
	if errors.Is(err, storage.ErrPinned) {
		return cli.WithHint(err, "remove the pin with 'corehaul unpin'; --force does not override it")
	}
	return err
}

func newReindex(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "reindex", GroupID: groupDumps, Args: cobra.NoArgs,
		Short: "Rebuild the index from the dump directories",
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.reindex(cmd.Context()) },
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) reindex(ctx context.Context) error {
	store, err := a.open(ctx, storage.OpenOptions{Existing: true})
	if err != nil {
		return err
	}
	report, err := store.Reindex(ctx)
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	if a.json {
		return cli.JSON(a.stdio.Out, report)
	}
	for _, dir := range report.Ignored {
		a.stdio.Warn("corehaul", "%s is not a dump", dir)
	}
	_, err = fmt.Fprintf(a.stdio.Out, "%d dumps, %d of them damaged\n", report.Dumps, report.Damaged)
	return err
}

func newVersion(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Args: cobra.NoArgs, Short: "Print the version",
		RunE: func(*cobra.Command, []string) error {
			v := versionDoc{cli.Version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if a.json {
				return cli.JSON(a.stdio.Out, v)
			}
			_, err := fmt.Fprintln(a.stdio.Out, strings.Join([]string{"corehaul", v.Version, v.Go, v.Platform}, " "))
			return err
		},
	}
	a.jsonFlag(cmd)
	return cmd
}
