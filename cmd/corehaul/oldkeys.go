package main

import (
	"fmt"
	"slices"
)

// oldKey is a key of a configuration file, or a flag, that has another name now. It counts as the new one does.
type oldKey struct{ was, now string }

func (k oldKey) String() string {
	return fmt.Sprintf("%s is now %s; the old name still works", k.was, k.now)
}

// oldKeys are those of a file.
type oldKeys []oldKey

// takeOld sets to to the value of a key, or of the name that the key had before. It adds an old name to old, once. A file
// with both is an error: nobody can say which one is meant.
func takeOld[T any](to, value, before *T, now, was string, old *oldKeys) error {
	switch {
	case value != nil && before != nil:
		return fmt.Errorf("%s is the old name of %s; give only %s", was, now, now)
	case value != nil:
		*to = *value
	case before != nil:
		*to = *before
		if k := (oldKey{was, now}); !slices.Contains(*old, k) {
			*old = append(*old, k)
		}
	}
	return nil
}
