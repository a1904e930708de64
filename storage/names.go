package storage

import (
	"fmt"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/hostname"
)

// CheckRef returns an error that matches ErrBadName unless host and id are valid.
func CheckRef(r Ref) error {
	if err := hostname.Check(r.Host); err != nil {
		return fmt.Errorf("%w: %w", ErrBadName, err)
	}
	if !dumpdir.ValidID(r.ID) {
		return fmt.Errorf("%w: dump id %q", ErrBadName, r.ID)
	}
	return nil
}
