package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/internal/plainfile"
)

const (
	// maxKeysBytes bounds an authorized keys file: 10,000 hosts with RSA keys.
	maxKeysBytes = 8 << 20
	// watchInterval is how often the file is checked for open connections.
	watchInterval = 2 * time.Second
	// badLinesLogged bounds what one bad file writes to the log.
	badLinesLogged = 10
)

// Keys is an authorized keys file. Each query reads the file again if it has changed.
//
// At the start, a bad line is an error. Later, no older state of the file counts: a bad line and an
// unreadable file let nobody in and are logged. The good lines of a file with a bad one still count,
// because a typing mistake must not cost the dumps of a whole fleet.
type Keys struct {
	log *slog.Logger

	mu    sync.Mutex
	path  string
	seen  stamp
	table map[string]*Entry
}

// stamp identifies a state of a file.
type stamp struct {
	inode, size uint64
	modified    time.Time
	changed     syscall.Timespec
	missing     bool
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{missing: true}
	}
	s := stamp{size: uint64(max(0, info.Size())), modified: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.changed = sys.Ino, sys.Ctim
	}
	return s
}

// LoadKeys reads the file at path. A bad line is an error, and the error of several is that of errors.Join.
func LoadKeys(path string, log *slog.Logger) (*Keys, error) {
	k := &Keys{path: path, log: log, seen: stampOf(path)}
	table, bad, err := readKeys(path)
	if err != nil {
		return nil, fmt.Errorf("authorized keys: %w", err)
	}
	var errs []error
	for _, line := range bad {
		errs = append(errs, fmt.Errorf("authorized keys: %w", line))
	}
	k.table = table
	return k, errors.Join(errs...)
}

// Use makes the file and the keys of other count, which nobody else uses. Watch ends the connections of keys that are gone.
func (k *Keys) Use(other *Keys) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.path, k.seen, k.table = other.path, other.seen, other.table
}

// Each calls f for each key that was in the file when it was last read.
func (k *Keys) Each(f func(*Entry)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.table {
		f(e)
	}
}

// stamp identifies the present state of the file.
func (k *Keys) stamp() (path string, s stamp) {
	k.mu.Lock()
	path = k.path
	k.mu.Unlock()
	return path, stampOf(path)
}

func readKeys(path string) (map[string]*Entry, []*LineError, error) {
	f, err := plainfile.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // read-only
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case info.Mode().Perm()&0o002 != 0:
		return nil, nil, fmt.Errorf("%s is writable by everybody: anybody could add a key", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeysBytes+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > maxKeysBytes {
		return nil, nil, fmt.Errorf("%s is larger than %d bytes", path, maxKeysBytes)
	}
	table, bad := parseKeys(path, text)
	return table, bad, nil
}

// Find returns what key may do, or nil.
func (k *Keys) Find(key ssh.PublicKey) *Entry {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	return k.table[string(key.Marshal())]
}

// Legacy lists the legacy algorithms that some key may use.
func (k *Keys) Legacy() (names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	for _, e := range k.table {
		names = append(names, e.Legacy...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Len returns the number of keys.
func (k *Keys) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.table)
}

// refresh reads the file again if it has changed. The mutex is held.
func (k *Keys) refresh() {
	now := stampOf(k.path)
	if now == k.seen {
		return
	}
	k.seen = now
	table, bad, err := readKeys(k.path)
	if err != nil {
		k.log.Error("cannot read the authorized keys: nobody can log in over SSH", "error", err)
	}
	for i, line := range bad {
		if i == badLinesLogged {
			k.log.Error("authorized keys: there are more bad lines", "file", k.path, "lines", len(bad))
			break
		}
		k.log.Error("authorized keys: ignored a bad line", "error", line, "hint", line.Hint)
	}
	k.table = table
	k.log.Info("reloaded the authorized keys", "file", k.path, "keys", len(table))
}

// Watch calls changed after the file has changed and then stayed the same for a while: an editor may write it in pieces, and
// half a file must not end sessions. It returns when ctx is done.
func (k *Keys) Watch(ctx context.Context, changed func()) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	path, reported := k.stamp()
	last := reported
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		file, now := k.stamp()
		if file != path || now == last && now != reported {
			path, reported = file, now
			changed()
		}
		last = now
	}
}

// errNotListed means that the key is not in the file.
var errNotListed = errors.New("not in the authorized keys")
