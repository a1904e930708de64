package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// CacheDir is the directory of all that the lab keeps.
func CacheDir() string {
	if dir := os.Getenv("COREHAUL_LAB_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/corehaul-lab"
}

// cached returns the directory kind/name of the cache. If it does not exist, make
// fills an empty directory, which is then renamed to it.
func cached(ctx context.Context, kind, name string, makeIn func(dir string) error) (string, error) {
	final := filepath.Join(CacheDir(), kind, name)
	if isDir(final) {
		return final, nil
	}
	unlock, err := lock(ctx, kind+"-"+name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if isDir(final) {
		return final, nil
	}
	tmp, err := tempDir(kind + "-" + name)
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := makeIn(tmp); err != nil {
		return "", fmt.Errorf("lab: make %s/%s: %w", kind, name, err)
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return "", err
	}
	// MkdirTemp gives permissions to the owner only.
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	return final, os.Rename(tmp, final)
}

// tempDir makes an empty directory on the cache's own file system.
func tempDir(prefix string) (string, error) {
	parent := filepath.Join(CacheDir(), "tmp")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	sweep(parent, time.Now())
	return os.MkdirTemp(parent, prefix+"-")
}

// sweep removes what killed processes left in tmp more than a day ago. No entry takes that long to make.
func sweep(parent string, now time.Time) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return // sweeping is optional
	}
	for _, e := range entries {
		path := filepath.Join(parent, e.Name())
		if changed, err := changeTime(path); err == nil && now.Sub(changed) > 24*time.Hour {
			_ = os.RemoveAll(path)
		}
	}
}

// changeTime returns when an inode was last changed. The modification time is no use: unpacking a
// package sets that of its root directory to the date of the package.
func changeTime(path string) (time.Time, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return time.Unix(st.Ctim.Unix()), err
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// lock waits for the cache's lock of a name and takes it. The kernel releases it when
// the holder dies.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	dir := filepath.Join(CacheDir(), "locks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lab: lock %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("lab: waiting for lock %s: %w", name, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
