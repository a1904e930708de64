package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/groups"
)

// shownID is how many characters of an id a table shows.
const shownID = 12

// titleWidth is how many characters of a title or panic line are shown: no title is longer, and it ends with the name of the function.
const titleWidth = 120

// listing is the document of "ls --json".
type listing struct {
	Dumps []listedDump `json:"dumps"`
}

// listedDump is a dump in it.
type listedDump struct {
	storage.Entry
	Group string `json:"group,omitempty"` // id of the group of dumps of the same crash
}

func newLs(a *app) *cobra.Command {
	var f filterFlags
	var group string
	cmd := &cobra.Command{
		Use: "ls [HOST...]", Aliases: []string{"list"}, GroupID: groupDumps, ValidArgsFunction: cli.Complete(a.completeHost),
		Short: "List the dumps, newest first",
		Long: `List the dumps, newest first, with HOST only those of these hosts. Hosts, states, and parts of
titles, panic lines and releases may be patterns, in which * stands for any characters and ? for one.
Letter case does not matter. Commas separate several of them: any of them will do.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.hosts = append(f.hosts, args...)
			if err := f.complete(time.Now()); err != nil {
				return cli.Usage(err)
			}
			return a.ls(cmd.Context(), f.Filter, group)
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&f.hosts, "host", nil, "only dumps of these `HOSTS`: web-17, or web-*,db1")
	flags.StringArrayVar(&f.states, "state", nil, "only dumps in these `STATES`: "+strings.Join(stateNames(), ", "))
	f.addTimes(flags, "only crashes")
	flags.StringArrayVar(&f.releases, "release", nil, "only kernels whose release contains this `TEXT`: 6.1.0-2?, or cloud,rt")
	flags.StringArrayVar(&f.panics, "panic", nil, "only crashes whose title or panic line contains this `TEXT`")
	flags.StringVar(&group, "group", "", "only dumps of this group: see 'corehaul groups'")
	flags.BoolVar(&f.Pinned, "pinned", false, "only pinned dumps")
	flags.IntVarP(&f.Limit, "limit", "n", 0, "show at most this many, the newest; 0 shows all")
	a.completeFlags(cmd)
	return cmd
}

func (a *app) ls(ctx context.Context, f storage.Filter, group string) (err error) {
	store, err := a.open(ctx, storage.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var gs *groups.Groups
	if a.json || group != "" {
		if gs, err = a.collect(ctx, store, storage.Filter{}); err != nil {
			return err
		}
	}
	if group != "" {
		if f.Only, err = dumpsOf(ctx, store, gs, group); err != nil {
			return err
		}
	}
	entries, err := store.List(ctx, f)
	if err != nil {
		return err
	}
	if a.json {
		return cli.JSON(a.stdio.Out, listing{withGroups(entries, gs)})
	}
	if len(entries) == 0 {
		a.say("no dump is listed: none is stored, or none is as the arguments and flags say")
	}
	return a.printTable(entries)
}

// dumpsOf returns the dumps of the group that a person named.
func dumpsOf(ctx context.Context, store storage.Store, gs *groups.Groups, name string) ([]storage.Ref, error) {
	g, err := gs.Find(name)
	if err != nil {
		return nil, noSuchGroup(err)
	}
	members, err := gs.Members(ctx, store, g)
	refs := make([]storage.Ref, len(members))
	for i := range members {
		refs[i] = members[i].Ref
	}
	return refs, err
}

// withGroups adds the groups of dumps to them.
func withGroups(entries []storage.Entry, gs *groups.Groups) []listedDump {
	dumps := make([]listedDump, len(entries))
	for i, e := range entries {
		dumps[i].Entry = e
		if s := e.Sighting(); gs.Of(&s) != nil {
			dumps[i].Group = gs.Of(&s).ID
		}
	}
	return dumps
}

func (a *app) printTable(entries []storage.Entry) error {
	t := cli.NewTable(a.stdio.Out, "ID", "HOST", "TIME", "KERNEL", "STATE", "PAGES", "BYTES", "TOOK", "PIN", "TITLE").
		Spare("TOOK", "PAGES", "PIN", "BYTES", "KERNEL", "STATE")
	for _, e := range entries {
		m := &e.Manifest
		t.Row(e.ID[:min(shownID, len(e.ID))], e.Host, cli.TableTime(a.stdio.Out, e.When()), m.Release, string(e.State()),
			pages(m), bytesize.Format(uint64(max(m.Bytes.VMCore, 0))), took(m), pinMark(&e), cli.Clip(cmp.Or(e.Headline(), "-"), titleWidth))
	}
	return t.Flush()
}

// pinMark is the table's cell about a pin.
func pinMark(e *storage.Entry) string {
	if e.Pin == nil {
		return "-"
	}
	return "pinned"
}

// pages returns the number of present pages, and the planned number if some are missing.
func pages(m *dumpdir.Manifest) string {
	if m.Pages.Present == m.Pages.Planned {
		return strconv.FormatUint(m.Pages.Present, 10)
	}
	return fmt.Sprintf("%d/%d", m.Pages.Present, m.Pages.Planned)
}
