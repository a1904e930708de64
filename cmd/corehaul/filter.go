package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/timespan"
	"github.com/corehaul/corehaul/storage"
)

// filterFlags are the flags that choose dumps, as people write them, and the filter that complete makes of them.
type filterFlags struct {
	storage.Filter

	hosts, states, panics, releases []string
	since, until                    string
}

// addTimes adds the flags for the time of the crash. what begins their help.
func (f *filterFlags) addTimes(flags *pflag.FlagSet, what string) {
	flags.StringVar(&f.since, "since", "", what+" since this `TIME`: see 'corehaul help forms'")
	flags.StringVar(&f.until, "until", "", what+" before this `TIME`")
}

// complete makes the filter of the texts.
func (f *filterFlags) complete(now time.Time) (err error) {
	f.Host, f.Panic, f.Release = patterns(f.hosts), patterns(f.panics), patterns(f.releases)
	if f.State, err = chosen(f.states, dumpStates, "state of a dump"); err != nil {
		return err
	}
	if f.Since, err = parseTime(f.since, now); err != nil {
		return fmt.Errorf("--since: %w", err)
	}
	if f.Until, err = parseTime(f.until, now); err != nil {
		return fmt.Errorf("--until: %w", err)
	}
	return nil
}

// patterns splits lists at their commas.
func patterns(lists []string) (p storage.Patterns) {
	for _, list := range lists {
		for item := range strings.SplitSeq(list, ",") {
			if item = strings.TrimSpace(item); item != "" {
				p = append(p, item)
			}
		}
	}
	return p
}

// chosen returns the words that the patterns of lists choose. A pattern that chooses none is a mistake.
func chosen[T ~string](lists []string, words []T, what string) (found []T, err error) {
	for _, pattern := range patterns(lists) {
		before := len(found)
		for _, word := range words {
			if (storage.Patterns{pattern}).Match(string(word)) {
				found = append(found, word)
			}
		}
		if len(found) == before {
			return nil, fmt.Errorf("%q is not a %s; the states are %s", pattern, what, strings.Join(names(words), ", "))
		}
	}
	return found, nil
}

func names[T ~string](words []T) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return out
}

// dumpStates are the states of dumps.
var dumpStates = []dumpdir.State{dumpdir.StateArriving, dumpdir.StateComplete, dumpdir.StatePartial, dumpdir.StateLogOnly, dumpdir.StateDamaged}

func stateNames() []string { return names(dumpStates) }

// timeLayouts are the forms of dates and times without a zone. They are in UTC, as all times that are printed.
var timeLayouts = []string{time.DateOnly, "2006-01-02 15:04", time.DateTime, "2006-01-02T15:04", "2006-01-02T15:04:05"}

// zonedLayouts are those with a zone: Z or +01:00.
var zonedLayouts = []string{time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04Z07:00", "2006-01-02T15:04Z07:00"}

// timeForms says which times parseTime reads.
const timeForms = "a date (2026-11-30), a time in UTC (2026-11-30 14:05) or with a zone (2026-11-30T14:05:00+01:00), today, yesterday, or an age (36h, 7d)"

// parseTime reads a date, a time or an age. Empty is the zero time.
func parseTime(s string, now time.Time) (time.Time, error) {
	switch strings.ToLower(s) {
	case "":
		return time.Time{}, nil
	case "today":
		return now.UTC().Truncate(timespan.Day), nil
	case "yesterday":
		return now.UTC().Truncate(timespan.Day).Add(-timespan.Day), nil
	}
	for _, layout := range slices.Concat(timeLayouts, zonedLayouts) {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if d, err := timespan.Parse(s); err == nil {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is not %s", s, timeForms)
}
