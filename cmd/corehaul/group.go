package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/groups"
)

func newGroup(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "group", GroupID: groupTriage, Short: "Say something of all dumps of one crash, merge and split groups",
		Long: `Say something of all dumps of one crash, merge and split groups. 'corehaul groups' lists
them. GROUP is a signature of the group, or a beginning of one with at least 4 digits.
What was said is kept in DATA/state/groups.json, is bound to the signatures of the group, and
holds for dumps that come later too. No command and no retention removes it. It deletes
no dump and keeps none from being received.`,
	}
	cmd.AddCommand(newGroupShow(a), newGroupNote(a), newGroupTicket(a), newGroupMute(a), newGroupUnmute(a), newGroupResolve(a), newGroupReopen(a),
		newGroupMerge(a), newGroupSplit(a), newGroupUndo(a))
	return cmd
}

func newGroupShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show GROUP", Args: cobra.ExactArgs(1), ValidArgsFunction: cli.Complete(a.completeGroup),
		Short: "Show the facts of a group",
		RunE:  func(cmd *cobra.Command, args []string) error { return a.showGroupNamed(cmd.Context(), args[0]) },
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

// groupWork is what a command that changes a group works on. It holds the lock of the state.
type groupWork struct {
	store storage.Store
	state *groups.State
	all   *groups.Groups
	group *groups.Group
	by    groups.Made
}

// changeGroup changes the state of a group and prints the line that change returns.
func (a *app) changeGroup(ctx context.Context, name string, change func(*groupWork) (string, error)) error {
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	store, err := a.open(ctx, storage.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	var done, group string
	err = groups.Update(dir, func(st *groups.State) error {
		gs, err := groups.Collect(ctx, store, st, storage.Filter{}, time.Now())
		if err != nil {
			return err
		}
		g, err := gs.Find(name)
		if err != nil {
			return noSuchGroup(err)
		}
		group = g.ID
		done, err = change(&groupWork{store: store, state: st, all: gs, group: g, by: groups.Made{By: who(), Time: time.Now().UTC().Truncate(time.Second)}})
		return err
	})
	if err = errors.Join(err, store.Close()); err != nil {
		return unreadable(err)
	}
	if a.json {
		return cli.JSON(a.stdio.Out, groupChanged{group, done})
	}
	_, err = fmt.Fprintln(a.stdio.Out, cli.Printable(done))
	return err
}

// noSuchGroup adds a hint if an error of Find says that no group has the name.
func noSuchGroup(err error) error {
	var several *groups.AmbiguousError
	if errors.Is(err, groups.ErrNotFound) && !errors.As(err, &several) {
		return cli.WithHint(err, "'corehaul groups' lists the groups")
	}
	return err
}

// unreadable adds a hint if the state cannot be read.
func unreadable(err error) error {
	if !errors.Is(err, groups.ErrState) {
		return err
	}
	return cli.WithHint(err, "nothing was changed; use the program that wrote the file, restore it from a backup, or move it away to begin without notes and states")
}

// who is the name of the user who runs the command.
func who() string {
	if name := os.Getenv("SUDO_USER"); name != "" && os.Geteuid() == 0 {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// nameOf names a group in messages.
func nameOf(g *groups.Group) string {
	if g.Title == "" {
		return fmt.Sprintf("%s (%d dumps)", g.ID, g.Dumps)
	}
	return fmt.Sprintf("%s (%s, %d dumps)", g.ID, cli.Clip(g.Title, titleWidth), g.Dumps)
}
