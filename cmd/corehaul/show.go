package main

import (
	"cmp"
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
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore"
)

func newShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID|VMCORE", GroupID: groupDumps, Args: cobra.ExactArgs(1), ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Show what is known of a dump",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), args[0], func(t *target) error { return a.show(cmd.Context(), t) })
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

// shown is a dump as --json prints it.
type shown struct {
	storage.Entry
	Files  []dumpdir.KeptFile `json:"files,omitempty"`  // kept beside it
	Erased []string           `json:"erased,omitempty"` // what makedumpfile erased from it, as it says so
}

func (a *app) show(ctx context.Context, t *target) error {
	if !t.isDump() || t.isVMCore() {
		return a.showFile(ctx, t)
	}
	if err := t.describe(ctx); err != nil {
		return err
	}
	files, erased, err := aside(ctx, t)
	if err != nil {
		return err
	}
	if a.json {
		return cli.JSON(a.stdio.Out, shown{t.entry, files, erased})
	}
	m := &t.entry.Manifest
	rows := facts{
		{"id", m.ID},
		{"host", m.Host},
		{"state", string(t.entry.State())},
		{"reason", m.Reason},
		{"pinned", pinText(t.entry.Pin)},
		{"verified", verifiedText(t.entry.Verification)},
		{"panic", m.PanicLine},
		{"kernel", m.Release},
		{"machine", m.Machine},
		{"nodename", m.Nodename},
		{"build id", m.BuildID},
		{"crash time", optionalTime(m.CrashTime)},
		{"began", cli.Time(m.StartTime)},
		{"ended", optionalTime(m.EndTime)},
		{"took", took(m.StartTime, m.EndTime)},
		{"pages", pages(m)},
		{"zero pages", strconv.FormatUint(m.Pages.Zero, 10)},
		{"vmcore", cli.Bytes(uint64(max(m.Bytes.VMCore, 0)))},
		{"raw", cli.Bytes(uint64(max(m.Bytes.Raw, 0)))},
		{"stored as", counts(m.Encodings)},
		{"sha256", m.SHA256},
		{"from", strings.TrimSpace(m.Transport + " " + m.Peer)},
		{"sender", m.Sender},
		{"receiver", m.Receiver},
		{"path", t.entry.Path},
	}
	if p := m.Plan; p != nil {
		rows = append(rows, facts{
			{"dump level", strconv.Itoa(int(p.Level))},
			{"page size", strconv.Itoa(p.PageSize)},
			{"max_mapnr", strconv.FormatUint(p.MaxPFN, 10)},
			{"cpus", strconv.FormatUint(uint64(p.NrCPUs), 10)},
			{"pages of RAM", counts(p.Classes)},
		}...)
	}
	for _, line := range erased {
		rows = append(rows, [2]string{"erased", line})
	}
	for _, f := range files {
		rows = append(rows, [2]string{"file", fmt.Sprintf("%s (%s)", f.Name, cli.Bytes(uint64(max(f.Size, 0))))})
	}
	if v := t.entry.Verification; v != nil {
		for _, f := range v.Findings {
			rows = append(rows, [2]string{"damage", findingLine(f)})
		}
	}
	return rows.print(a)
}

// aside returns what the directory of a dump tells beside its manifest: the files kept with
// it, and what was erased from it. Damage is what verify tells of.
func aside(ctx context.Context, t *target) (files []dumpdir.KeptFile, erased []string, err error) {
	var damage *dumpdir.DamageError
	d, err := t.dump(ctx)
	if errors.As(err, &damage) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = d.Close() }() // only read
	files, err = d.Kept()
	if errors.As(err, &damage) {
		files, err = nil, nil
	}
	return files, d.Erased(), err
}

// describe fills in the entry of a dump that was given by its path.
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
	if t.entry.Pin, err = dumpdir.ReadPin(dumpdir.OS{}, t.dir); err != nil {
		t.entry.Pin = &dumpdir.Pin{Version: dumpdir.SideFileVersion, Reason: "the pin cannot be read: " + err.Error()}
	}
	if v, err := dumpdir.ReadVerification(dumpdir.OS{}, t.dir); err == nil && v != nil && v.Of(m) {
		t.entry.Verification = v
	}
	return d.Close()
}

// pinText tells since when a dump is pinned, and why.
func pinText(p *dumpdir.Pin) string {
	if p == nil {
		return ""
	}
	return strings.TrimSpace(cli.Time(p.Time) + " " + p.Reason)
}

// verifiedText tells when a dump was verified last and what was found.
func verifiedText(v *dumpdir.Verification) string {
	switch {
	case v == nil:
		return ""
	case v.Damaged > 0:
		return fmt.Sprintf("%s, damaged in %d place(s)", cli.Time(v.Time), v.Damaged)
	}
	return cli.Time(v.Time) + ", no damage found"
}

// facts are lines of a name and a value; those without a value are not printed.
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

// took is how long a dump took to arrive, empty while it arrives.
func took(from time.Time, to *time.Time) string {
	if to == nil {
		return ""
	}
	d := to.Sub(from)
	if d < time.Second { // the end is kept in whole seconds
		return "<1s"
	}
	return cli.Duration(d)
}

// counts formats "snappy 123, zero 45", the names sorted.
func counts(m map[string]uint64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
		}
	}
	return strings.Join(parts, ", ")
}

// fileFacts is the document of "show --json" for a file.
type fileFacts struct {
	Path       string    `json:"path"`
	Format     string    `json:"format"`
	Inner      string    `json:"inner,omitempty"` // format inside a flattened file
	Machine    string    `json:"machine"`
	Release    string    `json:"release,omitempty"`
	Nodename   string    `json:"nodename,omitempty"`
	BuildID    string    `json:"build_id,omitempty"`
	PageSize   int       `json:"page_size"`
	MaxPFN     uint64    `json:"max_pfn"`
	RAMBytes   uint64    `json:"ram_bytes"`
	Pages      uint64    `json:"pages"`
	CPUs       int       `json:"cpus"`
	Erased     []string  `json:"erased,omitempty"` // what makedumpfile erased from it, as it says so
	DumpLevel  *int      `json:"dump_level,omitempty"`
	Incomplete bool      `json:"incomplete"`
	CrashTime  time.Time `json:"crash_time,omitzero"`
	Warnings   []string  `json:"warnings,omitempty"`
}

func (a *app) showFile(ctx context.Context, t *target) error {
	m, err := t.memory(ctx)
	if err != nil {
		return err
	}
	f, err := gather(t.path, m)
	if closeErr := m.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.path, err)
	}
	if a.json {
		return cli.JSON(a.stdio.Out, f)
	}
	return f.rows().print(a)
}

func gather(path string, img vmcore.Image) (*fileFacts, error) {
	info := img.Info()
	k, err := machine.Kernel(img, info)
	if err != nil {
		k = nil // then its memory tells nothing
	}
	uts := machine.Utsname(info, k)
	f := &fileFacts{
		Path: path, Format: info.Format, Machine: uts.Machine, Release: uts.Release, Nodename: uts.Nodename,
		PageSize: info.PageSize, MaxPFN: uint64(info.MaxPFN), CPUs: cmp.Or(info.NrCPUs, len(info.CPUs)), Incomplete: info.Incomplete, Warnings: info.Warnings,
		Erased: info.Erased(),
	}
	if f.Machine == "" { // none that kdump exists for
		f.Machine = strings.ToLower(strings.TrimPrefix(info.Machine.String(), "EM_"))
	}
	if info.Inner != info.Format {
		f.Inner = info.Inner
	}
	if info.DumpLevel >= 0 {
		f.DumpLevel = &info.DumpLevel
	}
	f.BuildID, _ = info.VMCOREINFO.String("BUILD-ID")
	f.CrashTime, _ = info.VMCOREINFO.CrashTime()
	for _, r := range img.RAM() {
		f.RAMBytes += r.Len()
	}
	for e, err := range img.Pages() {
		if err != nil {
			return nil, err
		}
		f.Pages += e.Count
	}
	return f, nil
}

func (f *fileFacts) rows() facts {
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
		{"RAM", cli.Bytes(f.RAMBytes)},
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
