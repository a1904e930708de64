package vmcoreinfo

import (
	"maps"
	"slices"
)

// Keys returns all keys, sorted.
func (i *Info) Keys() []string { return slices.Sorted(maps.Keys(i.values)) }
