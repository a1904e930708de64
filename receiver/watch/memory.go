package watch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/corehaul/corehaul/depotcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/internal/printable"
	"github.com/corehaul/corehaul/storage"
)

// Name and limits of the file.
const (
	memoryName    = "watch.json"
	memoryVersion = 1
	maxMemory     = 64 << 20 // bytes
	maxRecords    = 1 << 17  // of paths, and of dumps
)

// memory is what was taken. A dump that somebody has removed from the store since must not come back, and the watched directory may be
// read-only. So the memory is a file in the store's directory for what no dump can rebuild. It is safe for concurrent use.
type memory struct {
	dir string
	log *slog.Logger

	mu    sync.Mutex
	file  memoryFile
	dirty bool // the file on the disk is older
}

// memoryFile is watch.json.
type memoryFile struct {
	Version int `json:"version"`
	// Paths has the directories of which nothing is left to take, by the hash of their path.
	Paths map[string]*record `json:"paths"`
	// Dumps has the dumps that were taken, by host/id.
	Dumps map[string]*taken `json:"dumps"`
}

// record is a directory that is settled.
type record struct {
	Path      string    `json:"path"`      // for people
	Signature string    `json:"signature"` // of the names, lengths and times of its files
	Changed   time.Time `json:"changed"`   // its own time of modification
	Leaf      bool      `json:"leaf"`      // nothing below it can have a dump
	Seen      time.Time `json:"seen"`      // when it was settled
}

// taken is a dump that was taken, or that the store had already.
type taken struct {
	depotcopy.Standing
	Seen time.Time `json:"seen"`
}

// openMemory reads the file in dir. One that cannot be read is put aside: what it says is worth less than the dumps that come.
func openMemory(dir string, log *slog.Logger) *memory {
	m := &memory{dir: dir, log: log}
	text, err := plainfile.Read(filepath.Join(dir, memoryName), maxMemory)
	if err == nil {
		if err = json.Unmarshal(text, &m.file); err == nil && m.file.Version != memoryVersion {
			err = fmt.Errorf("its version is %d, not %d", m.file.Version, memoryVersion)
		}
	}
	if err != nil {
		m.file = memoryFile{}
		if !errors.Is(err, fs.ErrNotExist) {
			aside := filepath.Join(dir, memoryName+".damaged")
			log.Error("the list of dumps that were taken from watched directories cannot be read; dumps that were removed since may come again",
				"path", filepath.Join(dir, memoryName), "error", err, "aside", aside, "moved", os.Rename(filepath.Join(dir, memoryName), aside) == nil)
		}
	}
	m.file.Version = memoryVersion
	maps.DeleteFunc(m.file.Paths, func(_ string, r *record) bool { return r == nil })
	maps.DeleteFunc(m.file.Dumps, func(_ string, t *taken) bool { return t == nil })
	if m.file.Paths == nil {
		m.file.Paths = map[string]*record{}
	}
	if m.file.Dumps == nil {
		m.file.Dumps = map[string]*taken{}
	}
	return m
}

// key is a path as a key: a path need not be valid UTF-8.
func key(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:16])
}

// unchanged reports whether a directory is settled and its own time has not changed, so that nobody need look into it.
func (m *memory) unchanged(path string, changed time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.file.Paths[key(path)]
	return r != nil && r.Leaf && r.Changed.Equal(changed)
}

// settled reports whether a directory was settled as it is.
func (m *memory) settled(path string, now record) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.file.Paths[key(path)]
	return r != nil && r.Signature == now.Signature
}

// settle notes that nothing is left to take of a directory. The caller saves it soon.
func (m *memory) settle(path string, r record, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.Path, r.Seen = printable.Clean(path, 512), now.UTC().Truncate(time.Second)
	m.file.Paths[key(path)], m.dirty = &r, true
}

// has reports whether a dump was taken.
func (m *memory) has(ref storage.Ref) bool {
	_, ok := m.standing(ref)
	return ok
}

// standing returns how good a dump was that was taken.
func (m *memory) standing(ref storage.Ref) (depotcopy.Standing, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.file.Dumps[ref.String()]
	if t == nil {
		return depotcopy.Standing{}, false
	}
	return t.Standing, true
}

// took notes that a dump is in the store. The caller saves it soon.
func (m *memory) took(ref storage.Ref, s depotcopy.Standing, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if was := m.file.Dumps[ref.String()]; was != nil && was.Standing == s {
		return
	}
	m.file.Dumps[ref.String()], m.dirty = &taken{s, now.UTC().Truncate(time.Second)}, true
}

// save writes the file if there is something new. If that fails, the next call tries again; until then the notes are in memory.
func (m *memory) save() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirty {
		return
	}
	text, err := m.file.encode(maxRecords, maxMemory)
	if err == nil {
		err = dumpdir.OS{}.MkdirAll(m.dir)
	}
	if err == nil {
		err = dumpdir.SaveFile(dumpdir.OS{}, m.dir, memoryName, text)
	}
	if err != nil {
		m.log.Error("cannot note which dumps were taken from watched directories; after a restart, ones that were removed may come again", "error", err)
		return
	}
	m.dirty = false
}

// encode returns the text of the file. It drops the oldest records until there are at most so many, and the text is not longer than the limit.
func (f *memoryFile) encode(records, limit int) (text []byte, err error) {
	for {
		prune(f.Paths, func(r *record) time.Time { return r.Seen }, records)
		prune(f.Dumps, func(t *taken) time.Time { return t.Seen }, records)
		if text, err = json.Marshal(f); err != nil || len(text) <= limit {
			return text, err
		}
		records = max(len(f.Paths), len(f.Dumps)) - 1
	}
}

// prune drops the older half of a list that has more than most records.
func prune[T any](list map[string]T, seen func(T) time.Time, most int) {
	if len(list) <= most {
		return
	}
	keys := slices.Collect(maps.Keys(list))
	slices.SortFunc(keys, func(a, b string) int { return seen(list[a]).Compare(seen(list[b])) })
	for _, k := range keys[:(len(keys)+1)/2] {
		delete(list, k)
	}
}
