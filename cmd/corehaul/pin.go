package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

func newPin(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "pin ID...", GroupID: groupDumps, Args: cobra.MinimumNArgs(1), ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Keep dumps from rm and from retention",
		Long: `Keep dumps from rm and from retention until they are unpinned. Arriving dumps can be
pinned, too. The pin is a file in the directory of the dump and moves with it. A second
pin replaces the time and reason of the first.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachDump(cmd.Context(), args, "pinned", false, func(s storage.Store, ref storage.Ref) error {
				return s.SaveSide(cmd.Context(), ref, dumpdir.NewPin(time.Now(), reason), nil)
			})
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why the dumps are kept; shown with the pin")
	return cmd
}

func newUnpin(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "unpin ID...", GroupID: groupDumps, Args: cobra.MinimumNArgs(1), ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Remove the pins of dumps",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachDump(cmd.Context(), args, "unpinned", false, func(s storage.Store, ref storage.Ref) error {
				return s.RemoveSide(cmd.Context(), ref, dumpdir.PinName)
			})
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

// doneLine is a line of the commands with --json that change dumps.
type doneLine struct {
	Result string `json:"result"` // pinned, unpinned, removed
	storage.Ref
}

func (a *app) tellDone(done string, ref storage.Ref) error {
	if a.json {
		return cli.JSONLine(a.stdio.Out, doneLine{done, ref})
	}
	_, err := fmt.Fprintln(a.stdio.Out, done, ref)
	return err
}

// movesError refuses a name for which tomorrow another dump may stand.
func movesError(name string, e *storage.Entry) error {
	return cli.WithHint(fmt.Errorf("%q names the newest dump, now %s, and later another one", name, e.Ref), fmt.Sprintf("name the dump itself: %s", e.Ref))
}

// eachDump applies do to dumps of the store and prints done for each. It resolves all names before it does anything. With lasting, it takes
// no name that later stands for another dump.
func (a *app) eachDump(ctx context.Context, names []string, done string, lasting bool, do func(storage.Store, storage.Ref) error) error {
	store, err := a.open(ctx, storage.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	var refs []storage.Ref
	for _, name := range names {
		e, findErr := storage.FindNamed(ctx, store, name)
		if findErr == nil && lasting && storage.Moves(name, &e) {
			findErr = movesError(name, &e)
		}
		if findErr != nil {
			return errors.Join(noSuchDump(findErr), store.Close())
		}
		refs = append(refs, e.Ref)
	}
	for _, ref := range refs {
		if err = ctx.Err(); err != nil {
			break
		}
		if err = do(store, ref); err != nil {
			break
		}
		if err = a.tellDone(done, ref); err != nil {
			break
		}
	}
	return errors.Join(err, store.Close())
}
