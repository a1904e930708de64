package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/groups"
)

// completeFlags completes the values of the flags of cmd that choose dumps or groups.
func (a *app) completeFlags(cmd *cobra.Command) {
	cli.CompleteFlag(cmd, "host", cli.Complete(a.completeHost))
	states := stateNames()
	if cmd.Name() == "groups" {
		states = names(groups.Statuses)
	}
	cli.CompleteList(cmd, "state", states...)
}

// completeHost completes the names of hosts that have dumps, also behind a comma.
func (a *app) completeHost(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	store, err := a.open(cmd.Context(), storage.OpenOptions{ReadOnly: true})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer func() { _ = store.Close() }() // only read
	entries, err := store.List(cmd.Context(), storage.Filter{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var hosts []string
	for _, e := range entries {
		hosts = append(hosts, e.Host)
	}
	slices.Sort(hosts)
	return cli.ListWords(prefix, slices.Compact(hosts)), cobra.ShellCompDirectiveNoFileComp
}

// formsTopic is "help forms": how sizes, durations and times are written.
func formsTopic() *cobra.Command {
	return &cobra.Command{
		Use: "forms", Short: "How sizes, durations, times and patterns are written",
		Long: strings.TrimSpace(`
Sizes have binary units: 64MiB and 64M are 67108864 bytes, 1.5GiB is one and a half times
1024 MiB. 64MB counts as 64MiB, with a warning.

Durations are 30s, 15m, 1h30m, 7d (a day has 24 hours) and 2w. They may be put together: 1d12h.

Times are one of these. What has no zone is in UTC, as all times that are printed:
  2026-11-30                  the beginning of a day
  2026-11-30 14:05            also with seconds, and with T in place of the space
  2026-11-30T14:05:00+01:00   with a zone; Z is UTC
  today, yesterday            the beginning of the day
  36h, 7d                     an age: so long ago ('group mute --until': from now)
'corehaul log --since' is about the time in a log: seconds since boot, or -30s, before its end.

Patterns: * stands for any characters, ? for one. Letter case does not matter. Commas
separate several patterns, of which one has to match: --host 'web-*,db1'.`),
	}
}
