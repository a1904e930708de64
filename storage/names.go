package storage

import (
	"fmt"

	"github.com/corehaul/corehaul/dumpdir"
)

const maxHostLen = 64

// CheckHost tells whether name may be a host's: 1 to 64 characters of A-Z, a-z, 0-9, dot, dash and
// underscore, the first one a letter or digit. Host names become directory names. The error matches ErrBadName.
func CheckHost(name string) error {
	if name == "" || len(name) > maxHostLen {
		return fmt.Errorf("%w: host of %d characters", ErrBadName, len(name))
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '-' && c != '_') {
			return fmt.Errorf("%w: host %q", ErrBadName, name)
		}
	}
	return nil
}

// CheckRef tells whether both parts of r keep their grammar. The error matches ErrBadName.
func CheckRef(r Ref) error {
	if err := CheckHost(r.Host); err != nil {
		return err
	}
	if !dumpdir.ValidID(r.ID) {
		return fmt.Errorf("%w: dump id %q", ErrBadName, r.ID)
	}
	return nil
}
