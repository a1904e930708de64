package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
)

// maxKnown bounds the names that a Store keeps in memory.
const maxKnown = 1 << 18

// clockTick is longer than the resolution of file times. Two changes within it may leave the same time.
const clockTick = 20 * time.Millisecond

// knownNames caches the names of dumps of the hosts that were asked for.
type knownNames struct {
	mu    sync.Mutex
	hosts map[string]*hostNames
	count int // number of names of all hosts
}

// hostNames has the names of the dumps of one host, by their short id: those read from its directory and those that this
// process has added since. It is valid while the directory has the modification time mod.
type hostNames struct {
	mod   time.Time
	names map[string][]string
	count int
}

// namesLike returns the names in the directory of a host that have the short id of id. It reads the directory only after a
// change, because a host may have thousands of dumps and each sender asks several times.
func (s *Store) namesLike(host, id string) ([]string, error) {
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	h, err := s.namesOf(host)
	if err != nil {
		return nil, err
	}
	return h.names[id[:dumpdir.ShortID]], nil
}

// namesOf returns the names in the directory of a host, which may be missing. mu is held while they are used.
func (s *Store) namesOf(host string) (*hostNames, error) {
	at, err := modTime(s.hostDir(host))
	if errors.Is(err, fs.ErrNotExist) {
		return &hostNames{}, nil
	}
	if err != nil {
		return nil, err
	}
	if h := s.names.hosts[host]; h != nil && h.mod.Equal(at) {
		return h, nil
	}
	return s.readNames(host, at)
}

// readNames reads the directory of a host. at is the modification time of the directory before. mu is held.
func (s *Store) readNames(host string, at time.Time) (*hostNames, error) {
	names, err := s.fs.ReadDir(s.hostDir(host))
	if err != nil {
		return nil, err
	}
	h := &hostNames{mod: at, names: map[string][]string{}}
	for _, name := range names {
		h.add(name)
	}
	s.forget(host)
	if time.Since(at) < clockTick {
		return h, nil // do not cache: a change right now might not change the time
	}
	if s.names.count += h.count; s.names.count > maxKnown {
		s.names.hosts, s.names.count = nil, h.count
	}
	if s.names.hosts == nil {
		s.names.hosts = map[string]*hostNames{}
	}
	s.names.hosts[host] = h
	return h, nil
}

// forget drops the names of a host. mu is held.
func (s *Store) forget(host string) {
	if h := s.names.hosts[host]; h != nil {
		s.names.count -= h.count
		delete(s.names.hosts, host)
	}
}

// add adds a name if it can be that of a dump. It returns how many names are new: 0 or 1.
func (h *hostNames) add(name string) int {
	_, id, ok := strings.Cut(name, "-")
	if !ok || len(id) < dumpdir.ShortID || slices.Contains(h.names[id[:dumpdir.ShortID]], name) {
		return 0
	}
	short := id[:dumpdir.ShortID]
	h.names[short] = append(h.names[short], name)
	h.count++
	return 1
}

// adding returns a function that the caller has to call once it has put a dump into the directory of the host. Others may put theirs
// there at the same time. So every name is added. The time of the directory is taken over if the one before was known.
func (s *Store) adding(host string) (made func(dir string)) {
	before, _ := modTime(s.hostDir(host)) // none yet
	return func(dir string) {
		s.names.mu.Lock()
		defer s.names.mu.Unlock()
		h := s.names.hosts[host]
		if h == nil {
			return
		}
		s.names.count += h.add(filepath.Base(dir))
		if at, err := modTime(s.hostDir(host)); err == nil && h.mod.Equal(before) {
			h.mod = at
		}
	}
}

func (s *Store) hostDir(host string) string { return filepath.Join(s.dumps(), host) }

func modTime(dir string) (time.Time, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return time.Time{}, err
	}
	return st.ModTime(), nil
}
