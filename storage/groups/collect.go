package groups

import (
	"context"
	"slices"
	"time"

	"github.com/corehaul/corehaul/storage"
)

// pageLen is how many dumps are read from the index at a time.
const pageLen = 4096

// Source is the store of the dumps.
type Source interface {
	Sightings(ctx context.Context, after *storage.Sighting, limit int) ([]storage.Sighting, error)
}

// Collect returns the groups of the dumps of a store. Those that have a dump which f chooses are Chosen. It opens no dump.
func Collect(ctx context.Context, src Source, st *State, f storage.Filter, now time.Time) (*Groups, error) {
	b := NewBuilder(st, now)
	err := each(ctx, src, func(s *storage.Sighting) { b.Add(s, matches(s, &f)) })
	if err != nil {
		return nil, err
	}
	return b.Groups(), nil
}

// Members returns the dumps of one of these groups, the newest first. It opens no dump.
func (gs *Groups) Members(ctx context.Context, src Source, g *Group) ([]storage.Sighting, error) {
	var members []storage.Sighting
	err := each(ctx, src, func(s *storage.Sighting) {
		if gs.Of(s) == g {
			members = append(members, *s)
		}
	})
	return members, err
}

// each calls f with every dump of a store, the newest first. It has no more than pageLen in memory.
func each(ctx context.Context, src Source, f func(*storage.Sighting)) error {
	var after *storage.Sighting
	for {
		page, err := src.Sightings(ctx, after, pageLen)
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			f(&page[i])
		}
		after = &page[len(page)-1]
	}
}

// matches reports whether a filter of lists chooses a dump. It ignores f.State, f.Pinned and f.Limit.
func matches(s *storage.Sighting, f *storage.Filter) bool {
	return f.Host.Match(s.Host) && (f.Since.IsZero() || !s.At.Before(f.Since)) && (f.Until.IsZero() || s.At.Before(f.Until)) &&
		f.Release.MatchPart(s.Release) && f.Panic.MatchPart(s.Title, s.PanicLine)
}

// Chosen returns the groups that the filter of Collect chose and that have one of these statuses, any if there are none.
func (gs *Groups) Chosen(statuses ...Status) []*Group {
	chosen := []*Group{}
	for _, g := range gs.All {
		if g.chosen && (len(statuses) == 0 || slices.Contains(statuses, g.Status)) {
			chosen = append(chosen, g)
		}
	}
	return chosen
}
