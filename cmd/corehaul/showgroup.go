package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/lazyregexp"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/groups"
)

// groupName is what can be a signature or the beginning of one.
var groupName = lazyregexp.New(`^[0-9a-f]{4,16}$`)

// showNamed shows the dump, the file or the group of an argument.
func (a *app) showNamed(ctx context.Context, arg string) error {
	g, err := a.maybeGroup(ctx, arg)
	if err != nil {
		return err
	}
	t, err := a.find(ctx, arg)
	var several *storage.AmbiguousError
	switch {
	case g == nil && err == nil:
		return errors.Join(a.show(ctx, t), t.close())
	case g == nil:
		return err
	case err == nil && t.store != nil:
		return errors.Join(cli.WithHint(fmt.Errorf("%q names the dump %s and the group %s", arg, t.entry.Ref, nameOf(g)), bothHint(t.entry.String(), g)), t.close())
	case errors.As(err, &several):
		return cli.WithHint(fmt.Errorf("%w, and the group %s", err, nameOf(g)), bothHint("HOST/ID", g))
	case err == nil || errors.Is(err, storage.ErrNotFound):
		return a.showGroup(ctx, g)
	}
	return err
}

func bothHint(dump string, g *groups.Group) string {
	return fmt.Sprintf("'corehaul show %s' shows the dump, 'corehaul group show %s' the group", dump, g.ID)
}

// maybeGroup returns the group that an argument names, nil if it names none. Several groups of that name are an error.
func (a *app) maybeGroup(ctx context.Context, arg string) (*groups.Group, error) {
	if !groupName.MatchString(arg) {
		return nil, nil
	}
	gs, err := a.allGroups(ctx)
	if errors.Is(err, fs.ErrNotExist) { // there is no store, but perhaps a file of that name
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	g, err := gs.Find(arg)
	if several, ok := errors.AsType[*groups.AmbiguousError](err); ok {
		return nil, a.severalGroups(ctx, several)
	}
	return g, nil
}

// severalGroups is the error for a name that several groups have, and perhaps a dump too.
func (a *app) severalGroups(ctx context.Context, several *groups.AmbiguousError) error {
	t, err := a.findDump(ctx, several.Name)
	if err != nil {
		return several
	}
	ref := t.entry.String()
	return errors.Join(cli.WithHint(fmt.Errorf("%w, and the dump %s", several, ref), fmt.Sprintf("'corehaul show %s' shows the dump", ref)), t.close())
}

// allGroups returns the groups of the store. It computes them once.
func (a *app) allGroups(ctx context.Context) (*groups.Groups, error) {
	if a.known != nil {
		return a.known, nil
	}
	store, err := a.open(ctx, storage.OpenOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	a.known, err = a.collect(ctx, store, storage.Filter{})
	return a.known, errors.Join(err, store.Close())
}

// showGroupNamed shows the group of that name.
func (a *app) showGroupNamed(ctx context.Context, name string) error {
	gs, err := a.allGroups(ctx)
	if err != nil {
		return err
	}
	g, err := gs.Find(name)
	if err != nil {
		return noSuchGroup(err)
	}
	return a.showGroup(ctx, g)
}

// shownNames is how many hosts, kernels and signatures "show" prints of a group.
const shownNames = 20

func (a *app) showGroup(ctx context.Context, g *groups.Group) error {
	if a.json {
		return cli.JSON(a.stdio.Out, g)
	}
	rows := facts{{"group", g.ID}, {"state", string(g.Status)}, {"title", g.Title}, {"crash", a.wordsOf(ctx, g)}}
	for _, t := range g.Tickets {
		rows = append(rows, [2]string{"ticket", t.Text + madeText(t.Made)})
	}
	for _, t := range g.Notes {
		rows = append(rows, [2]string{"note", t.Text + madeText(t.Made)})
	}
	if m := g.Muted; m != nil {
		rows = append(rows, [2]string{"muted", strings.TrimSpace(untilText(m.Until)+madeText(m.Made)) + partly(g, groups.StatusMuted)})
	}
	for _, r := range g.Resolved {
		rows = append(rows, [2]string{"resolved", "in " + strings.Join(r.Kernels, " and ") + madeText(r.Made) + partly(g, groups.StatusResolved)})
	}
	if r := g.Regression; r != nil {
		rows = append(rows, [2]string{"regression", regressionText(r)})
	}
	if g.Vague {
		rows = append(rows, [2]string{"beware", "a signature names no place in the code: different crashes may be in this group"})
	}
	rows = append(rows, facts{
		{"dumps", strconv.Itoa(g.Dumps)},
		{"first seen", cli.Time(g.First)},
		{"last seen", cli.Time(g.Last)},
		{"hosts", some(g.Hosts, shownNames)},
		{"kernels", some(g.Kernels, shownNames)},
		{"more", moreText(g)},
		{"signatures", some(g.Signatures, shownNames)},
		{"example", g.Example.String()},
	}...)
	for _, c := range g.Changes {
		rows = append(rows, [2]string{"by hand", changeText(c)})
	}
	if err := rows.print(a); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdio.Out, "\nits dumps: corehaul ls --group %s\nthe example: corehaul show %s\n", g.ID, cli.Printable(g.Example.String()))
	return err
}

// partly says that something holds for a part of the signatures only, so that it is not the state of the group.
func partly(g *groups.Group, is groups.Status) string {
	if g.Status == is || g.Status == groups.StatusRegressed || is == groups.StatusMuted && g.Status == groups.StatusResolved {
		return ""
	}
	return "; not of all its signatures, so it does not count for the group"
}

// moreText says that a group has more names than are listed.
func moreText(g *groups.Group) string {
	if !g.More {
		return ""
	}
	return fmt.Sprintf("there are more than %d hosts, kernels or signatures", groups.MaxNames)
}

// regressionText says which dump came since, and why it counts.
func regressionText(r *groups.Regression) string {
	text := fmt.Sprintf("%s of %s, %s", r.Dump, cmp.Or(r.Kernel, "an unknown kernel"), cli.Time(r.Time))
	switch {
	case r.Dumps > 1:
		text += fmt.Sprintf(", the newest of %d", r.Dumps)
	case r.Dumps == 0:
		text += ", removed since"
	}
	if r.Unordered {
		text += "; nothing says whether this kernel is older than the one in which the crash was resolved"
	}
	return text
}

// wordsOf returns the words of which the signature of a group's example was made.
func (a *app) wordsOf(ctx context.Context, g *groups.Group) string {
	t, err := a.findDump(ctx, g.Example.String())
	if err != nil {
		return "" // it is gone by now
	}
	defer func() { _ = t.close() }() // only read
	if s := t.entry.Signature(); s != nil {
		return strings.Join(s.Frames, " < ")
	}
	return ""
}

// membership is the place of a dump in its group.
type membership struct {
	group  *groups.Group
	number int // 1 is the first
}

// dumpDetails is the document of "show --json" of a dump.
type dumpDetails struct {
	storage.Details
	Group *memberDocument `json:"group,omitempty"`
}

// memberDocument is the group of a dump in it.
type memberDocument struct {
	ID     string        `json:"id"`
	Status groups.Status `json:"state"`
	Dumps  int           `json:"dumps"`
	Number int           `json:"number"` // of this dump; 1 is the first
}

// groupOf returns the place of a stored dump in its group, nil if it is in none.
func (a *app) groupOf(ctx context.Context, t *target) (*membership, error) {
	if t.store == nil || t.entry.Signature() == nil {
		return nil, nil
	}
	gs, err := a.allGroups(ctx)
	if err != nil {
		return nil, err
	}
	s := t.entry.Sighting()
	g := gs.Of(&s)
	if g == nil {
		return nil, nil // its report came just now
	}
	members, err := gs.Members(ctx, t.store, g)
	at := slices.IndexFunc(members, func(m storage.Sighting) bool { return m.Ref == s.Ref })
	if at < 0 {
		return nil, err // removed just now
	}
	return &membership{g, len(members) - at}, err
}

func (m *membership) document() *memberDocument {
	if m == nil {
		return nil
	}
	return &memberDocument{m.group.ID, m.group.Status, m.group.Dumps, m.number}
}

// text says it in one line.
func (m *membership) text() string {
	if m == nil {
		return ""
	}
	g := m.group
	parts := []string{fmt.Sprintf("%s, %s of %d since %s, %s", g.ID, ordinal(m.number), g.Dumps, cli.Time(g.First), hostCount(g))}
	if g.Muted != nil && partly(g, groups.StatusMuted) == "" {
		parts = append(parts, "muted"+untilText(g.Muted.Until))
	}
	if len(g.Resolved) > 0 && g.Status == groups.StatusResolved {
		parts = append(parts, "resolved in "+strings.Join(g.Resolved[0].Kernels, " and "))
	}
	if g.Status == groups.StatusRegressed {
		parts = append(parts, "regression of "+strings.Join(g.Resolved[0].Kernels, " and "))
	}
	return strings.Join(parts, "; ")
}

func hostCount(g *groups.Group) string {
	if len(g.Hosts) == 1 {
		return "1 host"
	}
	return fmt.Sprintf("%d hosts", len(g.Hosts))
}

// ordinal formats 1st, 2nd, 3rd, 4th, 11th.
func ordinal(n int) string {
	suffix := "th"
	if n%100/10 != 1 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return strconv.Itoa(n) + suffix
}
