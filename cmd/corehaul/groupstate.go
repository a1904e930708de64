package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/printable"
	"github.com/corehaul/corehaul/storage/groups"
)

func newGroupNote(a *app) *cobra.Command {
	return a.textCommand("note", "TEXT...", "Write a note about a group",
		`Write a note about a group, which 'show' prints. It replaces the note before.`,
		func(m *groups.Mark, t *groups.Text) { m.Note = t })
}

func newGroupTicket(a *app) *cobra.Command {
	return a.textCommand("ticket", "LINK", "Name the ticket of a group",
		`Name the ticket of a group: a link or a number in your bug tracker. It replaces the ticket
before.`,
		func(m *groups.Mark, t *groups.Text) { m.Ticket = t })
}

// textCommand makes a command that gives a group a text, or takes it away.
func (a *app) textCommand(name, arg, short, long string, set func(*groups.Mark, *groups.Text)) *cobra.Command {
	var clearIt bool
	cmd := &cobra.Command{
		Use: name + " GROUP " + arg, Args: cobra.MinimumNArgs(1), ValidArgsFunction: cli.Complete(a.completeGroup), Short: short, Long: long,
		RunE: func(cmd *cobra.Command, args []string) error {
			text := strings.Join(args[1:], " ")
			if err := checkText(text, name, clearIt); err != nil {
				return cli.Usage(err)
			}
			return a.changeGroup(cmd.Context(), args[0], func(w *groupWork) (string, error) {
				if clearIt {
					return "removed the " + name + " of group " + nameOf(w.group), w.state.Set(w.group, func(_ string, m *groups.Mark) { set(m, nil) })
				}
				t := &groups.Text{Text: text, Made: w.by}
				return name + " of group " + nameOf(w.group) + ": " + text, w.state.Set(w.group, func(_ string, m *groups.Mark) { set(m, t) })
			})
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	cmd.Flags().BoolVar(&clearIt, "clear", false, "remove the "+name)
	return cmd
}

// checkText returns what is wrong with the arguments behind the group.
func checkText(text, name string, clearIt bool) error {
	switch {
	case clearIt && text != "":
		return fmt.Errorf("--clear removes the %s; give no text with it", name)
	case !clearIt && strings.TrimSpace(text) == "":
		return fmt.Errorf("the %s is missing; --clear removes the one that is there", name)
	case len(text) > groups.MaxText:
		return fmt.Errorf("the %s has %d bytes; at most %d are kept", name, len(text), groups.MaxText)
	case !printable.String(text):
		return fmt.Errorf("the %s has characters that are not printable, or a line break; write one line of UTF-8", name)
	}
	return nil
}

func newGroupMute(a *app) *cobra.Command {
	var until string
	cmd := &cobra.Command{
		Use: "mute GROUP", Args: cobra.ExactArgs(1), ValidArgsFunction: cli.Complete(a.completeGroup),
		Short: "Say that nobody needs to look at a group",
		Long: `Say that nobody needs to look at a group. Its state is 'muted', so 'groups --state new'
does not list it. Its dumps are received and kept as before. A signature that joins the
group later is not muted, and ends the state.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			end, err := parseUntil(until, time.Now())
			if err != nil {
				return cli.Usage(err)
			}
			return a.changeGroup(cmd.Context(), args[0], func(w *groupWork) (string, error) {
				mute := &groups.Mute{Until: end, Made: w.by}
				return "muted group " + nameOf(w.group) + untilText(end), w.state.Set(w.group, func(_ string, m *groups.Mark) { m.Muted = mute })
			})
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	cmd.Flags().StringVar(&until, "until", "", "`TIME` when that ends: see 'corehaul help forms'; 36h and 7d are from now; empty: never")
	return cmd
}

// parseUntil reads a time to come. It is nil for an empty text.
func parseUntil(s string, now time.Time) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	var d cli.DurationValue
	if d.Set(s) == nil {
		t := now.Add(time.Duration(d)).UTC().Truncate(time.Second)
		return &t, nil
	}
	t, err := parseTime(s, now)
	if err != nil {
		return nil, err
	}
	if !t.After(now) {
		return nil, fmt.Errorf("%s is past", cli.Time(t))
	}
	t = t.UTC().Truncate(time.Second)
	return &t, nil
}

func untilText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return " until " + cli.Time(*t)
}

func newGroupUnmute(a *app) *cobra.Command {
	return a.endCommand("unmute", "unmuted", "Take back that nobody needs to look at a group", "it is not muted",
		func(g *groups.Group) bool { return g.Muted != nil }, func(m *groups.Mark) { m.Muted = nil })
}

func newGroupReopen(a *app) *cobra.Command {
	return a.endCommand("reopen", "reopened", "Take back that a group is resolved", "it is not resolved",
		func(g *groups.Group) bool { return len(g.Resolved) > 0 }, func(m *groups.Mark) { m.Resolved = nil })
}

// endCommand makes a command that takes back something said of a group.
func (a *app) endCommand(name, done, short, not string, is func(*groups.Group) bool, end func(*groups.Mark)) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " GROUP", Args: cobra.ExactArgs(1), ValidArgsFunction: cli.Complete(a.completeGroup), Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeGroup(cmd.Context(), args[0], func(w *groupWork) (string, error) {
				if !is(w.group) {
					return "", errors.New("group " + nameOf(w.group) + ": " + not)
				}
				return done + " group " + nameOf(w.group), w.state.Set(w.group, func(_ string, m *groups.Mark) { end(m) })
			})
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

func newGroupResolve(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "resolve GROUP KERNEL...", Args: cobra.MinimumNArgs(2), ValidArgsFunction: cli.Complete(a.completeGroup),
		Short: "Say in which kernel a crash is resolved",
		Long: `Say in which kernel a crash is resolved. KERNEL is a release as 'uname -r' prints it. A new
dump of this kernel or of a later one makes the group 'regressed'; dumps of older kernels
do not. Numbers are compared as numbers: 6.1.0-9 is before 6.1.0-10, and 6.1.0-rc3
before 6.1.0. Kernels of two distributions, or of two that count their builds apart, cannot
be ordered: a new dump of such a kernel counts as a regression too, and 'show' says why.
So name one KERNEL of each distribution that has the fix.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, kernels := cmd.Context(), strings.Join(args[1:], " and ")
			return a.changeGroup(ctx, args[0], func(w *groupWork) (string, error) {
				members, err := w.all.Members(ctx, w.store, w.group)
				if err != nil {
					return "", err
				}
				against, err := w.state.Resolve(w.all, w.group, members, args[1:], w.by)
				if err == nil && len(against) > 0 {
					a.stdio.Warn("corehaul", "%d dumps of this group have a kernel that is not known to be older than %s, the newest is %s of %s; only dumps that come from now on count",
						len(against), kernels, against[0].Ref, against[0].Release)
				}
				return "resolved group " + nameOf(w.group) + " in " + kernels, err
			})
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}
