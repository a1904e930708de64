package debuginfo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/debuginfo/symbolfile"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// Cache keeps what was downloaded in a directory, see the package comment.
type Cache struct {
	Dir   string
	Limit int64 // bytes of all files; no file may be longer
}

// CacheDir returns the user's cache: $XDG_CACHE_HOME/corehaul/debuginfo, or ~/.cache/corehaul/debuginfo.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no directory for a cache: %w", err)
	}
	return filepath.Join(dir, "corehaul", "debuginfo"), nil
}

// The ends of names in a cache.
const (
	completeEnd = ".debug"
	partEnd     = ".part"
	fromEnd     = ".from"
)

func (c *Cache) path(id symbolfile.BuildID, end string) string {
	return filepath.Join(c.Dir, id.String()+end)
}

// open opens a complete file and notes its use. It removes one that is damaged. It returns nil if there is none.
func (c *Cache) open(id symbolfile.BuildID, tell teller) *os.File {
	path := c.path(id, completeEnd)
	f, err := plainfile.Open(path)
	if err != nil {
		return nil
	}
	if err := flock(f, unix.LOCK_SH); err != nil || !named(f, path) {
		_ = f.Close() // it was just removed
		return nil
	}
	if err := checkFile(f, id); err != nil {
		tell("%s is damaged and was removed: %v", path, err)
		_ = errors.Join(os.Remove(path), f.Close()) // only read; what cannot be removed is replaced
		return nil
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // of another user's cache: the order of removal suffers
	return f
}

// named reports whether a path still leads to an open file.
func named(f *os.File, path string) bool {
	there, err := os.Lstat(path)
	if err != nil {
		return false
	}
	open, err := f.Stat()
	return err == nil && os.SameFile(there, open)
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// fetch returns a file of the cache. If it lacks it, get writes it to a part that nobody else has. The part is kept if get fails, unless it
// is at fault.
func (c *Cache) fetch(ctx context.Context, id symbolfile.BuildID, tell teller, get func(*part) error) (*os.File, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("the cache of debugging information: %w", err)
	}
	p, have, err := c.lockPart(ctx, id, tell)
	if err != nil || have != nil {
		return have, err
	}
	if err := get(p); err != nil {
		return nil, errors.Join(err, p.leave(err))
	}
	if err := p.finish(); err != nil {
		return nil, errors.Join(err, p.remove(), p.file.Close())
	}
	defer func() { _ = p.file.Close() }() // synchronized; until here, its lock keeps the file in the cache
	if err := c.shrinkTo(c.Limit); err != nil {
		tell("the cache of debugging information: %v", err)
	}
	if have = c.open(id, tell); have == nil {
		return nil, fmt.Errorf("%s was removed while it was downloaded", p.becomes)
	}
	return have, nil
}

// part is a file that is being downloaded. It is locked.
type part struct {
	file                *os.File
	id                  symbolfile.BuildID
	path, from, becomes string
	cache               *Cache
}

// lockInterval is the time between two looks at a part that another process downloads.
const lockInterval = 200 * time.Millisecond

// lockPart makes a part, or takes over the one that is there. While another process has it, it waits. have is the file if that is
// complete by then.
func (c *Cache) lockPart(ctx context.Context, id symbolfile.BuildID, tell teller) (p *part, have *os.File, err error) {
	path, told := c.path(id, partEnd), false
	for {
		f, err := plainfile.OpenToExtend(path, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("the cache of debugging information: %w", err)
		}
		err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && named(f, path) {
			if have := c.open(id, tell); have != nil {
				return nil, have, errors.Join(os.Remove(path), f.Close())
			}
			return &part{f, id, path, c.path(id, fromEnd), c.path(id, completeEnd), c}, nil, nil
		}
		if closeErr := f.Close(); err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), closeErr)
		}
		if err == nil {
			continue // whoever had it has given it its name or removed it
		}
		if !told {
			tell("another process is downloading %s: waiting for it", path)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case <-time.After(lockInterval):
		}
	}
}

// leave closes a part whose download failed. It stays for the next try, unless the disk is full or nothing can be added to it.
func (p *part) leave(why error) error {
	info, err := p.file.Stat()
	_, noOrigin := os.Stat(p.from)
	if err != nil || info.Size() == 0 || noOrigin != nil || errors.Is(why, unix.ENOSPC) || errors.Is(why, unix.EDQUOT) {
		err = p.remove()
	}
	return errors.Join(err, p.file.Close())
}

func (p *part) remove() error {
	err := os.Remove(p.from)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(p.path))
}

// finish makes a complete part the file of its build id, and keeps a shared lock on it.
func (p *part) finish() error {
	if err := p.file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(p.path, p.becomes); err != nil {
		return err
	}
	if err := os.Remove(p.from); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(flock(p.file, unix.LOCK_SH), plainfile.SyncDir(p.cache.Dir))
}

// room fails if the file system has no room for n bytes more. It removes what the limit of the cache leaves no room for.
func (c *Cache) room(n int64) error {
	if n > c.Limit {
		return fmt.Errorf("the file has %s, the cache takes %s", bytesize.Format(uint64(n)), bytesize.Format(uint64(c.Limit)))
	}
	if err := c.shrinkTo(c.Limit - n); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(c.Dir, &st); err != nil {
		return fmt.Errorf("the cache of debugging information: statfs %s: %w", c.Dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); uint64(n) > free {
		return fmt.Errorf("%s has %s free, %s are needed: %w", c.Dir, bytesize.Format(free), bytesize.Format(uint64(n)), unix.ENOSPC)
	}
	return nil
}

// shrinkTo removes the files whose use is longest ago until the others have at most limit bytes together. It leaves those that are locked.
func (c *Cache) shrinkTo(limit int64) error {
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	var list []fs.FileInfo
	total := int64(0)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(e.Name(), completeEnd) && !strings.HasSuffix(e.Name(), partEnd) {
			continue // it is gone, or not ours
		}
		list, total = append(list, info), total+info.Size()
	}
	slices.SortFunc(list, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), strings.Compare(a.Name(), b.Name()))
	})
	for _, info := range list {
		if total <= limit {
			break
		}
		if removed, err := c.removeUnused(info.Name()); err != nil {
			return err
		} else if removed {
			total -= info.Size()
		}
	}
	return nil
}

// removeUnused removes a file that nobody has locked.
func (c *Cache) removeUnused(name string) (bool, error) {
	path := filepath.Join(c.Dir, name)
	f, err := plainfile.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // only read
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil || !named(f, path) {
		return false, nil // it is in use
	}
	if hex, ok := strings.CutSuffix(name, partEnd); ok {
		_ = os.Remove(filepath.Join(c.Dir, hex+fromEnd)) // worth nothing without the part
	}
	return true, os.Remove(path)
}
