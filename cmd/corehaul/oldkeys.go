package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// oldKey is a key of a configuration file, a value in it, or a flag, that is written in another way now. It counts as the new one does.
type oldKey struct{ was, now string }

func (k oldKey) String() string {
	return fmt.Sprintf("%s is now %s; the old name still works", k.was, k.now)
}

// oldKeys are those of a file.
type oldKeys []oldKey

// decimalUnit finds a value with a decimal unit, which is read as a binary one.
var decimalUnit = lazyregexp.New(`^\s*(\w+)\s*=\s*"([0-9. ]+[KMGTPkmgtp][Bb])"`)

// decimalUnits returns the values of a file that have decimal units, as older spellings.
func decimalUnits(text []byte) (old oldKeys) {
	for line := range strings.Lines(string(text)) {
		if m := decimalUnit.FindStringSubmatch(line); m != nil {
			now, _ := bytesize.Binary(m[2])
			old = append(old, oldKey{fmt.Sprintf("%s = %q", m[1], m[2]), fmt.Sprintf("%s = %q", m[1], now)})
		}
	}
	return old
}

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
