package stock

import (
	"context"
	"math"
)

// Free implements Tree.
func (t *tree) Free(string) (uint64, error) {
	space, err := t.svc.cfg.Store.Space(context.Background())
	if err != nil {
		return 0, err
	}
	if space.Total == 0 {
		return math.MaxInt64, nil
	}
	return space.Free - min(space.Free, t.svc.cfg.Reserve), nil
}
