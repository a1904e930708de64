package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/sender"
)

// planDoc is what "plan --json" prints. It may get new fields; no field changes or goes.
type planDoc struct {
	Level    uint8     `json:"level"`
	PageSize uint32    `json:"page_size"`
	Pages    planPages `json:"pages"`
	Bytes    planBytes `json:"bytes"`
	Warnings []string  `json:"warnings"`
}

// planPages counts page frames. The counts of kinds include pages that the dump level excludes.
type planPages struct {
	Total        uint64 `json:"total"`
	Kept         uint64 `json:"kept"`
	Free         uint64 `json:"free"`
	Cache        uint64 `json:"cache"`
	CachePrivate uint64 `json:"cache_private"`
	User         uint64 `json:"user"`
	HWPoison     uint64 `json:"hwpoison"`
	Offline      uint64 `json:"offline"`
}

// planBytes counts bytes before compression.
type planBytes struct {
	Kept uint64 `json:"kept"`
}

func newPlan(stdio cli.Stdio) *cobra.Command {
	var level uint8
	var asJSON bool
	cmd := &cobra.Command{
		Use: "plan [flags] [VMCORE]", Short: "Show what would be sent: pages and bytes by kind",
		Long: `Reads the memory map of VMCORE, by default /proc/vmcore, and shows which pages would be sent
at a dump level. It does not read page contents: pages of zeros count as kept.

With --json it prints one document: level, page_size, pages (total, kept, free, cache,
cache_private, user, hwpoison, offline), bytes (kept, before compression), warnings.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkLevel(level); err != nil {
				return err
			}
			tuneMemory(1)
			src, err := openSource(quietIf(stdio, asJSON), vmcoreArg(args))
			if err != nil {
				return err
			}
			defer func() { _ = src.Close() }()
			p, err := src.Plan(cmd.Context(), pages.DumpLevel(level))
			if err != nil {
				return err
			}
			doc := describePlan(src, p)
			if asJSON {
				return cli.JSON(stdio.Out, doc)
			}
			for _, w := range p.Warnings {
				stdio.Warn(name, "%s", w)
			}
			return printPlan(stdio, doc)
		},
	}
	addLevel(cmd.Flags(), &level)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// quietIf keeps warnings off standard error if they are part of the document.
func quietIf(stdio cli.Stdio, quiet bool) cli.Stdio {
	if quiet {
		stdio.Err = discard{}
	}
	return stdio
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func describePlan(src *sender.Source, p *sender.Plan) planDoc {
	c := p.Pages
	return planDoc{
		Level: uint8(p.Level), PageSize: p.Params.PageSize,
		Pages: planPages{
			Total: c.Total, Kept: c.Kept, Free: c.Free, Cache: c.Cache, CachePrivate: c.CachePrivate,
			User: c.User, HWPoison: c.HWPoison, Offline: c.Offline,
		},
		Bytes:    planBytes{Kept: p.Bytes()},
		Warnings: append([]string{}, slices.Concat(src.Warnings(), p.Warnings)...),
	}
}

func printPlan(stdio cli.Stdio, d planDoc) error {
	level := pages.DumpLevel(d.Level)
	c := d.Pages
	kernel := c.Total - c.Free - c.Cache - c.CachePrivate - c.User - c.HWPoison - c.Offline
	t := cli.NewTable(stdio.Out, "KIND", "PAGES", "BYTES", fmt.Sprintf("AT LEVEL %d", d.Level))
	row := func(kind string, n uint64, note string) {
		t.Row(kind, strconv.FormatUint(n, 10), bytesize.Format(n*uint64(d.PageSize)), note)
	}
	for _, k := range []struct {
		name  string
		pages uint64
		class pages.Class
	}{
		{"kernel", kernel, pages.Kernel},
		{"cache", c.Cache, pages.Cache},
		{"cache, private", c.CachePrivate, pages.CachePrivate},
		{"user", c.User, pages.User},
		{"free", c.Free, pages.Free},
		{"hwpoison", c.HWPoison, pages.HWPoison},
		{"offline", c.Offline, pages.Offline},
	} {
		note := "kept"
		if k.class.ExcludedAt(level) {
			note = "left out"
		}
		row(k.name, k.pages, note)
	}
	row("total", c.Total, "")
	row("kept", c.Kept, "")
	return t.Flush()
}
