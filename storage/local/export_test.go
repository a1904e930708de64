package local

import "github.com/corehaul/corehaul/dumpdir"

// SetFS puts another file system under the store.
func (s *Store) SetFS(fs dumpdir.FS) { s.fs = fs }
