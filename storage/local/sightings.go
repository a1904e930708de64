package local

import (
	"context"
	"slices"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// Sightings implements storage.Store. Without an index, it reads all dumps for each page.
func (s *Store) Sightings(ctx context.Context, after *storage.Sighting, limit int) ([]storage.Sighting, error) {
	for {
		page, err := s.pageOfSightings(ctx, after, limit)
		if err != nil || len(page) == 0 {
			return nil, err
		}
		after = &storage.Sighting{Ref: page[len(page)-1].Ref, At: page[len(page)-1].At}
		if page = slices.DeleteFunc(page, s.gone); len(page) > 0 {
			return page, nil
		}
	}
}

// gone reports whether a person removed a dump that the index has. It looks at the names of the dumps of the host only.
func (s *Store) gone(seen storage.Sighting) bool {
	if len(seen.ID) < dumpdir.ShortID {
		return false
	}
	names, err := s.namesLike(seen.Host, seen.ID)
	return err == nil && len(names) == 0
}

func (s *Store) pageOfSightings(ctx context.Context, after *storage.Sighting, limit int) (page []storage.Sighting, err error) {
	err = s.withIndex(ctx, func(ix *indexHandle) (err error) {
		page, err = ix.Sightings(ctx, after, limit)
		return err
	})
	if err == nil || ctx.Err() != nil {
		return page, err
	}
	s.indexFailed(err)
	return s.scanSightings(ctx, after, limit)
}

// scanSightings is Sightings without an index.
func (s *Store) scanSightings(ctx context.Context, after *storage.Sighting, limit int) ([]storage.Sighting, error) {
	entries, _, err := s.scan(ctx)
	if err != nil {
		return nil, err
	}
	var all []storage.Sighting
	for i := range entries {
		if seen := entries[i].Sighting(); after == nil || seen.Before(after) {
			all = append(all, seen)
		}
	}
	slices.SortFunc(all, func(a, b storage.Sighting) int { return b.Compare(&a) })
	return all[:min(limit, len(all))], nil
}
