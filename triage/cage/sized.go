package cage

import (
	"path/filepath"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// What the journal and the front take for each page.
const (
	// pageCPU is several times what a page takes: 0.22 to 0.25 µs for dumps with 4 and 32 GiB of pages.
	pageCPU = time.Microsecond
	// pageWall leaves time for 32 bytes on a slow disk, 8 MB/s.
	pageWall = 4 * pageCPU
	// pageDesc is the length of a page descriptor in the front. A descriptor alone takes a block of the disk.
	pageDesc, diskBlock = 24, 4096
)

// maxPages is the most pages that a dump can have, with room to spare: of 4 KiB, 16 TiB are 1<<32.
const maxPages = 1 << 33

// sized returns c with limits for the dump in dir. A sender cannot buy much with that: each page that is present, also one of
// zeros, costs its host the same bytes on the disk that the report takes for a while. If the manifest cannot be read, the
// limits are those of a small dump.
func (c *Cage) sized(dir string) *Cage {
	f, err := plainfile.Open(filepath.Join(dir, dumpdir.ManifestName))
	if err != nil {
		return c
	}
	defer func() { _ = f.Close() }()
	m, err := dumpdir.ParseManifest(f)
	if err != nil {
		return c
	}
	sized := *c
	sized.limits = c.limits.with(m.Pages)
	return &sized
}

// with returns the limits for a dump with these pages.
func (l Limits) with(pages dumpdir.PageCounts) Limits {
	present, planned := min(pages.Present, maxPages), min(pages.Planned, maxPages)
	l.CPU += time.Duration(present) * pageCPU
	l.Wall += time.Duration(present) * pageWall
	l.Disk += min(planned*pageDesc, present*diskBlock)
	return l
}
