package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/index"
)

// sightingsQuery reads the index dump_sighting only. The dump that the page begins after is given by its place in the order.
const sightingsQuery = `SELECT at_ms, host, id, state, release, title, panic_line, signature, vague, linked
	FROM dump INDEXED BY dump_sighting WHERE (at_ms, host, id) < (?1, ?2, ?3) ORDER BY at_ms DESC, host DESC, id DESC LIMIT ?4`

// beyondAll is later than the time of every dump: milliseconds of the year 9999 are below 1<<48.
const beyondAll = 1 << 60

// Sightings implements index.Index.
func (ix *Index) Sightings(ctx context.Context, after *storage.Sighting, limit int) (page []storage.Sighting, err error) {
	at, ref := int64(beyondAll), storage.Ref{}
	if after != nil {
		at, ref = after.At.UnixMilli(), after.Ref
	}
	rows, err := ix.db.QueryContext(ctx, sightingsQuery, at, ref.Host, ref.ID, limit)
	if err != nil {
		return nil, mark(err)
	}
	defer func() { err = mark(errors.Join(err, rows.Close())) }()
	for rows.Next() {
		var s storage.Sighting
		var atMs int64
		if err := rows.Scan(&atMs, &s.Host, &s.ID, &s.State, &s.Release, &s.Title, &s.PanicLine, &s.Signature, &s.Vague, &s.Linked); err != nil {
			return nil, fmt.Errorf("%w: %w", index.ErrUnusable, err)
		}
		s.At = time.UnixMilli(atMs).UTC()
		page = append(page, s)
	}
	return page, rows.Err()
}
