package cage

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
)

// The limits follow the pages that a dump has, not those that its sender announced.
func TestSized(t *testing.T) {
	t.Parallel()
	const tib, gib = 1 << 40, 1 << 30
	d := DefaultLimits
	for name, tc := range map[string]struct {
		pages dumpdir.PageCounts
		cpu   time.Duration
		disk  uint64 // of the front
	}{
		"nothing":        {},
		"2 TiB":          {dumpdir.PageCounts{Planned: 2 * tib >> 12, Present: 2 * tib >> 12}, 2 * tib >> 12 * time.Microsecond, 12 * gib},
		"announced":      {dumpdir.PageCounts{Planned: 16 * tib >> 12, Present: 10}, 10 * time.Microsecond, 40960},
		"out of a range": {dumpdir.PageCounts{Planned: 1<<64 - 1, Present: 1<<64 - 1}, maxPages * time.Microsecond, maxPages * 24},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := d.with(tc.pages)
			want := Limits{CPU: d.CPU + tc.cpu, Wall: d.Wall + 4*tc.cpu, Memory: d.Memory, Disk: d.Disk + tc.disk, Output: d.Output}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestSizedByTheManifest(t *testing.T) {
	t.Parallel()
	dir := storedDump(t, allChunks, true)
	c := newCage(Limits{})
	if got, want := c.sized(dir).limits, c.limits.with(dumpdir.PageCounts{Planned: 64, Present: 64}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := os.WriteFile(filepath.Join(dir, dumpdir.ManifestName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := c.sized(dir).limits; got != c.limits {
		t.Errorf("a damaged manifest: %+v", got)
	}
}

// The temporary file lies beside the dump: /tmp may be small, or be memory.
func TestFrontBesideTheDump(t *testing.T) {
	dir := storedDump(t, allChunks, true)
	t.Setenv("TMPDIR", "/nonexistent")
	if r, err := newCage(Limits{}).Dump(t.Context(), dir); err != nil || len(r.Sources) == 0 {
		t.Errorf("got %+v, error %v", r, err)
	}
}
