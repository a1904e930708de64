package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/groups"
)

func newGroupMerge(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "merge GROUP OTHER", Args: cobra.ExactArgs(2), ValidArgsFunction: cli.Complete(a.completeGroup),
		Short: "Make one group of two",
		Long: `Make one group of two, because they are one crash under two signatures. What was said of
one of the two counts for its own dumps only until it is said of the merged group.
'group undo' takes the merge back.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeGroup(cmd.Context(), args[0], func(w *groupWork) (string, error) {
				other, err := w.all.Find(args[1])
				if err != nil {
					return "", noSuchGroup(err)
				}
				if err := w.state.Merge(w.group, other, w.by); err != nil {
					return "", fmt.Errorf("%s and %s: %w", args[0], args[1], err)
				}
				return "merged group " + nameOf(other) + " with " + nameOf(w.group), nil
			})
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

func newGroupSplit(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "split GROUP DUMP|SIGNATURE", Args: cobra.ExactArgs(2), ValidArgsFunction: cli.Complete(a.completeGroup),
		Short: "Take a dump or a signature out of a group",
		Long: `Take a dump or a signature out of a group, because it is another crash. A dump gets a group
of its own. A signature takes all of its dumps along, also those that come later.
'group undo' takes the split back.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.changeGroup(ctx, args[0], func(w *groupWork) (string, error) { return w.split(ctx, args[1]) })
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

// split takes the dump or the signature out of the group that a person named.
func (w *groupWork) split(ctx context.Context, name string) (string, error) {
	sig, err := w.signature(name)
	if err != nil {
		return "", err
	}
	e, findErr := storage.FindNamed(ctx, w.store, name)
	switch {
	case findErr == nil && sig != "":
		return "", cli.WithHint(fmt.Errorf("%q names the dump %s and the signature %s", name, e.Ref, sig), "write HOST/ID for the dump, or more digits")
	case findErr == nil:
		return w.splitDump(&e)
	case sig == "":
		return "", noSuchDump(findErr)
	}
	if err := w.state.SplitSignature(w.group, sig, w.by); err != nil {
		return "", fmt.Errorf("%s: %w", sig, err)
	}
	return "split signature " + sig + " from group " + nameOf(w.group), nil
}

func (w *groupWork) splitDump(e *storage.Entry) (string, error) {
	seen := e.Sighting()
	if w.all.Of(&seen) != w.group {
		return "", fmt.Errorf("dump %s is not in group %s", e.Ref, nameOf(w.group))
	}
	own, err := w.state.SplitDump(w.group, e.Ref, w.by)
	if err != nil {
		return "", fmt.Errorf("%s: %w", e.Ref, err)
	}
	return fmt.Sprintf("split dump %s from group %s; its own group is %s", e.Ref, nameOf(w.group), own), nil
}

// signature returns the signature of the group that begins with name, empty if there is none.
func (w *groupWork) signature(name string) (string, error) {
	var found []string
	for _, sig := range w.group.Signatures {
		if len(name) >= groups.MinPrefix && strings.HasPrefix(sig, name) {
			found = append(found, sig)
		}
	}
	if len(found) > 1 {
		return "", fmt.Errorf("%q names several signatures: %s", name, strings.Join(found, ", "))
	}
	return strings.Join(found, ""), nil
}

func newGroupUndo(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "undo GROUP", Args: cobra.ExactArgs(1), ValidArgsFunction: cli.Complete(a.completeGroup),
		Short: "Take back the last merge or split of a group",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeGroup(cmd.Context(), args[0], func(w *groupWork) (string, error) {
				c, err := w.state.Undo(w.group)
				if errors.Is(err, groups.ErrNoChange) {
					return "", fmt.Errorf("group %s: %w", nameOf(w.group), err)
				}
				return "undid the " + changeText(c), err
			})
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

// changeText says what was merged or split, by whom and when.
func changeText(c groups.Change) string {
	what := fmt.Sprintf("merge of %s with %s", c.Signature, c.Other)
	switch {
	case c.Dump != nil:
		what = fmt.Sprintf("split of dump %s from %s", c.Dump, c.Other)
	case c.Kind == groups.Split:
		what = fmt.Sprintf("split of signature %s from %s", c.Signature, c.Other)
	}
	return what + madeText(c.Made)
}

// madeText says who did something, and when.
func madeText(m groups.Made) string {
	return strings.Join(slices.DeleteFunc([]string{"", "by " + m.By, cli.Time(m.Time)}, func(s string) bool { return s == "by " }), " ")
}
