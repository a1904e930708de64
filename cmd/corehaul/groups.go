package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/groups"
	"github.com/corehaul/corehaul/storage/stores"
)

// groupListing is the document of "groups --json".
type groupListing struct {
	Groups   []*groups.Group `json:"groups"`
	Total    int             `json:"total"`    // groups that the filters choose
	Unsigned int             `json:"unsigned"` // dumps without a signature: they are in no group
	LeftOut  int             `json:"left_out"` // dumps that are in no group because there are too many signatures
}

// groupsFlags are the flags of "groups".
type groupsFlags struct {
	filter filterFlags
	states []string
	skip   int
}

func newGroups(a *app) *cobra.Command {
	var f groupsFlags
	cmd := &cobra.Command{
		Use: "groups", GroupID: groupTriage, Args: cobra.NoArgs,
		Short: "List the crashes that were seen, each with all of its dumps",
		Long: `List the groups of dumps that are of one crash, the one that was seen last first. A dump
belongs to a group by its signature, which is made from its report: the kind of the crash
and the functions that led to it. Host, kernel build, addresses and CPU do not matter.
Filters choose groups that have such a dump; the figures are those of all dumps.

States: 'new' until somebody says something of the group, 'muted', 'resolved' in a kernel,
and 'regressed' when a dump of that kernel or a later one came since. See 'corehaul group'.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			statuses, err := f.complete(time.Now())
			if err != nil {
				return cli.Usage(err)
			}
			return a.groups(cmd.Context(), &f, statuses)
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&f.filter.hosts, "host", nil, "only groups with a dump of these `HOSTS`: web-17, or web-*,db1")
	flags.StringArrayVar(&f.states, "state", nil, "only groups in these `STATES`: "+strings.Join(names(groups.Statuses), ", "))
	f.filter.addTimes(flags, "only groups with a crash")
	flags.StringArrayVar(&f.filter.releases, "release", nil, "only groups with a kernel whose release contains this `TEXT`")
	flags.StringArrayVar(&f.filter.panics, "panic", nil, "only groups with a title or panic line that contains this `TEXT`")
	flags.IntVarP(&f.filter.Limit, "limit", "n", 100, "show at most this many; 0 shows all")
	flags.IntVar(&f.skip, "skip", 0, "leave out this many at the beginning")
	a.completeFlags(cmd)
	return cmd
}

// complete adds the filters that are given as text.
func (f *groupsFlags) complete(now time.Time) (statuses []groups.Status, err error) {
	if statuses, err = chosen(f.states, groups.Statuses, "state of a group"); err != nil {
		return nil, err
	}
	if f.filter.Limit < 0 || f.skip < 0 {
		return nil, errors.New("--limit and --skip must not be negative")
	}
	return statuses, f.filter.complete(now)
}

func (a *app) groups(ctx context.Context, f *groupsFlags, statuses []groups.Status) error {
	store, err := a.open(ctx, storage.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	gs, err := a.collect(ctx, store, f.filter.Filter)
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	chosen := gs.Chosen(statuses...)
	shown := chosen[min(f.skip, len(chosen)):]
	if f.filter.Limit > 0 {
		shown = shown[:min(f.filter.Limit, len(shown))]
	}
	if a.json {
		return cli.JSON(a.stdio.Out, groupListing{Groups: shown, Total: len(chosen), Unsigned: gs.Unsigned, LeftOut: gs.Beyond})
	}
	if err := a.printGroups(shown); err != nil {
		return err
	}
	a.tellRest(len(chosen)-len(shown), gs)
	return nil
}

// collect returns the groups of a store, and warns if what people said of them cannot be read.
func (a *app) collect(ctx context.Context, store storage.Store, f storage.Filter) (*groups.Groups, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	st, err := groups.Read(dir)
	if err != nil {
		a.stdio.Warn("corehaul", "%v; the groups are shown without it: no note, no state, no merge and no split counts", err)
	}
	return groups.Collect(ctx, store, st, f, time.Now())
}

// noteRegressions keeps in the state which crashes came again, before their dumps are removed. No removal waits for a state that cannot be
// written.
func (a *app) noteRegressions(ctx context.Context, store storage.Store) {
	dir, err := a.stateDir()
	if err == nil {
		err = groups.Note(ctx, store, dir)
	}
	if err != nil {
		a.stdio.Warn("corehaul", "%v; a regression whose dump is removed will not be shown any more", err)
	}
}

// stateDir is the directory of what people said of groups.
func (a *app) stateDir() (string, error) {
	dir, err := stores.Dir(a.data)
	return filepath.Join(dir, stateDir), err
}

func (a *app) printGroups(list []*groups.Group) error {
	t := cli.NewTable(a.stdio.Out, "GROUP", "STATE", "DUMPS", "FIRST", "LAST", "HOSTS", "KERNELS", "EXAMPLE", "TITLE").
		Spare("FIRST", "EXAMPLE", "KERNELS", "HOSTS", "LAST")
	for _, g := range list {
		example := storage.Ref{Host: g.Example.Host, ID: g.Example.ID[:min(shownID, len(g.Example.ID))]}
		t.Row(g.ID, string(g.Status), strconv.Itoa(g.Dumps), cli.TableTime(a.stdio.Out, g.First), cli.TableTime(a.stdio.Out, g.Last),
			some(g.Hosts, 2), lastOf(g.Kernels), example.String(), cli.Clip(cmp.Or(g.Title, "-"), titleWidth))
	}
	return t.Flush()
}

// some lists the first few of some names, and says how many more there are.
func some(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, " ")
	}
	return fmt.Sprintf("%s +%d", strings.Join(names[:most], " "), len(names)-most)
}

// lastOf gives the last of some names, and says how many more there are.
func lastOf(names []string) string {
	last := names[len(names)-1]
	if len(names) > 1 {
		return fmt.Sprintf("%s +%d", cmp.Or(last, "-"), len(names)-1)
	}
	return cmp.Or(last, "-")
}

// tellRest says which dumps and groups the list does not have.
func (a *app) tellRest(rest int, gs *groups.Groups) {
	if rest > 0 {
		a.say("%d more groups; --limit and --skip show others", rest)
	}
	if gs.Unsigned > 0 {
		a.say("dumps in no group: %d; they have no report yet, which 'corehaul serve' makes, or their logs show no crash", gs.Unsigned)
	}
	if gs.Beyond > 0 {
		a.stdio.Warn("corehaul", "dumps in no group: %d; there are more than %d signatures, and these are of the oldest", gs.Beyond, groups.MaxKnown)
	}
}

// say writes a line that is no result to standard error.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stdio.Err, "corehaul: %s\n", cli.Printable(fmt.Sprintf(format, args...)))
}

// completeGroup completes the names of groups for the shell.
func (a *app) completeGroup(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	store, err := a.open(cmd.Context(), storage.OpenOptions{ReadOnly: true})
	if len(args) > 0 || err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer func() { _ = store.Close() }() // only read
	gs, err := a.collect(cmd.Context(), store, storage.Filter{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, g := range gs.All {
		if strings.HasPrefix(g.ID, prefix) {
			ids = append(ids, g.ID+"\t"+cli.Printable(g.Title))
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
