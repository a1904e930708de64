package storage

import (
	"fmt"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/hostname"
)

// CheckRef tells whether both parts of r keep their grammar. The error matches ErrBadName.
func CheckRef(r Ref) error {
	if err := hostname.Check(r.Host); err != nil {
		return fmt.Errorf("%w: %w", ErrBadName, err)
	}
	if !dumpdir.ValidID(r.ID) {
		return fmt.Errorf("%w: dump id %q", ErrBadName, r.ID)
	}
	return nil
}
