package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/storage"
)

func newShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID|VMCORE|GROUP", GroupID: groupDumps, Args: cobra.ExactArgs(1), ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Show the facts of a dump, or of a group of dumps",
		RunE:  func(cmd *cobra.Command, args []string) error { return a.showNamed(cmd.Context(), args[0]) },
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) show(ctx context.Context, t *target) error {
	if !t.isDump() || t.isVMCore() {
		return a.showFile(ctx, t)
	}
	if err := t.describe(ctx); err != nil {
		return err
	}
	details, err := t.details(ctx)
	if err != nil {
		return err
	}
	in, err := a.groupOf(ctx, t)
	if err != nil {
		return err
	}
	if a.json {
		return cli.JSON(a.stdio.Out, dumpDetails{details, in.document()})
	}
	m := &t.entry.Manifest
	crashed := a.whatCrashed(ctx, t)
	rows := append(crashRows(crashed), facts{
		{"group", in.text()},
		{"id", m.ID},
		{"host", m.Host},
		{"state", stateText(t.entry.State(), details.Finished)},
		{"reason", m.Reason},
		{"pinned", pinText(t.entry.Pin)},
		{"verified", verifiedText(t.entry.Verification)},
		{"panic", m.PanicLine},
		{"kernel", m.Release},
		{"machine", m.Machine},
		{"nodename", m.Nodename},
		{"build id", m.BuildID},
		{"crash time", optionalTime(m.CrashTime)},
		{"began", optionalTime(began(m))},
		{"ended", optionalTime(m.EndTime)},
		{"took", took(m)},
		{"pages", pages(m)},
		{"zero pages", strconv.FormatUint(m.Pages.Zero, 10)},
		{"vmcore", bytesize.Format(uint64(max(m.Bytes.VMCore, 0)))},
		{"raw", bytesize.Format(uint64(max(m.Bytes.Raw, 0)))},
		{"stored as", counts(m.Encodings)},
		{"sha256", m.SHA256},
		{"from", strings.TrimSpace(m.Transport + " " + m.Peer)},
		{"sender", m.Sender},
		{"receiver", m.Receiver},
		{"path", t.entry.Path},
	}...)
	if p := m.Plan; p != nil {
		rows = append(rows, facts{
			{"dump level", strconv.Itoa(int(p.Level))},
			{"page size", strconv.Itoa(p.PageSize)},
			{"max_mapnr", strconv.FormatUint(p.MaxPFN, 10)},
			{"cpus", strconv.FormatUint(uint64(p.NrCPUs), 10)},
			{"pages of RAM", counts(p.Classes)},
		}...)
	}
	for _, line := range details.Erased {
		rows = append(rows, [2]string{"erased", line})
	}
	for _, f := range details.Files {
		rows = append(rows, [2]string{"file", fmt.Sprintf("%s (%s)", f.Name, bytesize.Format(uint64(max(f.Size, 0))))})
	}
	if v := t.entry.Verification; v != nil {
		for _, f := range v.Findings {
			rows = append(rows, [2]string{"damage", findingLine(f)})
		}
	}
	if err := rows.print(a); err != nil {
		return err
	}
	return a.printCrash(crashed, vmcoreOf(&t.entry), m.Release)
}

// stateText is the state of a dump for people.
func stateText(s dumpdir.State, finished bool) string {
	if finished && s == dumpdir.StateArriving {
		return string(s) + " (complete; its SHA-256 is being made)"
	}
	return string(s)
}

// details returns what the files of a dump say beside its manifest. Only verify reports damage.
func (t *target) details(ctx context.Context) (storage.Details, error) {
	d, err := t.dump(ctx)
	if _, ok := errors.AsType[*dumpdir.DamageError](err); ok {
		return storage.Details{Entry: t.entry}, nil
	}
	if err != nil {
		return storage.Details{}, err
	}
	defer func() { _ = d.Close() }() // only read
	return storage.DetailsOf(t.entry, d)
}

// describe fills in the entry of a dump that is given by path.
func (t *target) describe(ctx context.Context) error {
	if t.store != nil {
		return nil
	}
	d, err := t.dump(ctx)
	if err != nil {
		return damaged(fmt.Errorf("%s: %w", t.name(), err))
	}
	m := d.Manifest()
	if d.Damage() != nil {
		m.State = dumpdir.StateDamaged
	}
	t.entry = storage.Entry{Ref: storage.Ref{Host: m.Host, ID: m.ID}, Path: t.dir, Manifest: *m}
	t.entry.ReadSides(dumpdir.OS{})
	return d.Close()
}

// pinText says since when a dump is pinned, and why.
func pinText(p *dumpdir.Pin) string {
	if p == nil {
		return ""
	}
	return strings.TrimSpace(cli.Time(p.Time) + " " + p.Reason)
}

// verifiedText says when a dump was last verified, and the result.
func verifiedText(v *dumpdir.Verification) string {
	switch {
	case v == nil:
		return ""
	case v.Damaged > 0:
		return fmt.Sprintf("%s, damaged in %d place(s)", cli.Time(v.Time), v.Damaged)
	}
	return cli.Time(v.Time) + ", no damage found"
}

// facts are lines of name and value. A line without a value is not printed.
type facts [][2]string

func (f facts) print(a *app) error {
	t := cli.NewTable(a.stdio.Out)
	for _, row := range f {
		if row[1] != "" {
			t.Row(row[0], row[1])
		}
	}
	return t.Flush()
}

func optionalTime(t *time.Time) string {
	if t == nil {
		return ""
	}
	return cli.Time(*t)
}

// began returns when a dump began to arrive. It is nil if only the manifest said so and that is lost: a manifest that is made
// from the journal has the time of the crash there.
func began(m *dumpdir.Manifest) *time.Time {
	if m.StartTime.IsZero() || m.CrashTime != nil && m.CrashTime.Equal(m.StartTime) {
		return nil
	}
	return &m.StartTime
}

// took is how long a dump took to arrive. It is empty while the dump arrives, and if nothing says when it began.
func took(m *dumpdir.Manifest) string {
	from := began(m)
	if from == nil || m.EndTime == nil {
		return ""
	}
	d := m.EndTime.Sub(*from)
	if d < time.Second { // the manifest has the end in whole seconds
		return "<1s"
	}
	return cli.Duration(d)
}

// counts formats "snappy 123, zero 45", sorted by name.
func counts(m map[string]uint64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
		}
	}
	return strings.Join(parts, ", ")
}

func (a *app) showFile(ctx context.Context, t *target) error {
	m, err := t.memory(ctx)
	if err != nil {
		return err
	}
	f, err := machine.Describe(t.path, m)
	if closeErr := m.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.path, err)
	}
	if a.json {
		return cli.JSON(a.stdio.Out, f)
	}
	return fileRows(f).print(a)
}

func fileRows(f *machine.Description) facts {
	format := f.Format
	if f.Inner != "" {
		format += " (" + f.Inner + " inside)"
	}
	rows := facts{
		{"path", f.Path},
		{"format", format},
		{"kernel", f.Release},
		{"machine", f.Machine},
		{"nodename", f.Nodename},
		{"build id", f.BuildID},
		{"page size", strconv.Itoa(f.PageSize)},
		{"max_mapnr", strconv.FormatUint(f.MaxPFN, 10)},
		{"RAM", bytesize.Format(f.RAMBytes)},
		{"pages", strconv.FormatUint(f.Pages, 10)},
		{"cpus", strconv.Itoa(f.CPUs)},
	}
	if !f.CrashTime.IsZero() {
		rows = append(rows, [2]string{"crash time", cli.Time(f.CrashTime)})
	}
	if f.DumpLevel != nil {
		rows = append(rows, [2]string{"dump level", strconv.Itoa(*f.DumpLevel)})
	}
	if f.Incomplete {
		rows = append(rows, [2]string{"incomplete", "yes"})
	}
	for _, line := range f.Erased {
		rows = append(rows, [2]string{"erased", line})
	}
	for _, w := range f.Warnings {
		rows = append(rows, [2]string{"warning", w})
	}
	return rows
}
