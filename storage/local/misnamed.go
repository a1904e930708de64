package local

import (
	"path/filepath"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/hostname"
)

// warnMisnamed warns of dumps that no list shows because their parent directory is not named as a host. corehaul stores
// no dump there: a person has moved it.
func (s *Store) warnMisnamed() {
	hosts, _ := s.fs.ReadDir(s.dumps()) // without it there is no list either
	for _, host := range hosts {
		bad := hostname.Check(host)
		if bad == nil {
			continue
		}
		names, _ := s.fs.ReadDir(filepath.Join(s.dumps(), host)) // a file has none
		for _, name := range names {
			dir := filepath.Join(s.dumps(), host, name)
			if _, err := dumpdir.ReadID(s.fs, dir); err == nil {
				s.opts.Log.Warn("a dump is not listed: its directory has no name of a host; 'corehaul show PATH' shows what it is", "path", dir, "error", bad)
			}
		}
	}
}
