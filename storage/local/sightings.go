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
		if page = s.there(page); len(page) > 0 {
			return page, nil
		}
	}
}

// there leaves out the dumps of a page that a person removed and the index has. It reads the directory of a host once at most, also where its
// names cannot be cached: its time is ahead of the clock, or there are more than maxKnown names.
func (s *Store) there(page []storage.Sighting) []storage.Sighting {
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	hosts := map[string]*hostNames{} // nil: cannot be read
	return slices.DeleteFunc(page, func(seen storage.Sighting) bool {
		if len(seen.ID) < dumpdir.ShortID {
			return false
		}
		h, known := hosts[seen.Host]
		if !known {
			h, _ = s.namesOf(seen.Host) // what cannot be read is not gone
			hosts[seen.Host] = h
		}
		return h != nil && len(h.names[seen.ID[:dumpdir.ShortID]]) == 0
	})
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
