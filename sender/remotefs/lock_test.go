package remotefs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/dumpdir"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// directory is a Server for a directory of this machine.
type directory struct{ root string }

func (d directory) path(name string) string { return filepath.Join(d.root, name) }

func (d directory) Open(name string, flags int) (Handle, func() error, error) {
	f, err := os.OpenFile(d.path(name), flags, FileMode)
	if err != nil {
		return nil, nil, err
	}
	return openFile{f}, nil, nil
}

func (d directory) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }
func (d directory) Remove(name string) error     { return os.Remove(d.path(name)) }
func (d directory) Mkdir(name string) error      { return os.Mkdir(d.path(name), DirMode) }

func (d directory) IsDir(name string) (bool, error) {
	st, err := os.Stat(d.path(name))
	return err == nil && st.IsDir(), err
}

func (d directory) ReadDir(name string) ([]string, error) { return dumpdir.OS{}.ReadDir(d.path(name)) }

func (d directory) SyncDir(name string) error  { return dumpdir.OS{}.SyncDir(d.path(name)) }
func (d directory) Free(string) (int64, error) { return 0, errors.ErrUnsupported }

// openFile is a Handle.
type openFile struct{ *os.File }

func (f openFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// connect returns the file system of a directory.
func connect(dir, owner string) *FS {
	return New(directory{dir}, Config{Owner: owner, ReadLen: 128 << 10, WriteLen: 128 << 10, InFlight: 1 << 20})
}

// lockSoon takes a lock within a minute, or says why not.
func lockSoon(f *FS) (io.Closer, error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		l, err := f.Lock(".")
		if !errors.Is(err, dumpdir.ErrLocked) || time.Now().After(end) {
			return l, err
		}
	}
}

// TestLock: who lives keeps it, and lets it go.
func TestLock(t *testing.T) { synctest.Test(t, testLock) }

func testLock(t *testing.T) {
	dir := t.TempDir()
	one, two := connect(dir, "one"), connect(dir, "two")
	l, err := one.Lock(".")
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // far longer than a lock is stale
		if _, err := two.Lock("."); !errors.Is(err, dumpdir.ErrLocked) {
			t.Fatalf("the second: %v, want ErrLocked", err)
		}
		time.Sleep(time.Second)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = two.Lock(".")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("left over: %v, %v", names, err)
	}
}

// TestStaleLock: one whose holder is gone is taken over, and the holder, should it wake up, writes nothing any more.
func TestStaleLock(t *testing.T) {
	for name, owners := range map[string][2]string{"of another": {"one", "two"}, "of this process": {"one", "one"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { staleLock(t, owners[0], owners[1]) })
		})
	}
}

func staleLock(t *testing.T, first, second string) {
	t.Helper()
	dir := t.TempDir()
	one, two := connect(dir, first), connect(dir, second)
	one.timing.beat = time.Hour // it sleeps
	sleeper, err := one.Lock(".")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lockSoon(two)
	if err != nil {
		t.Fatal(err)
	}
	if first != second {
		if err := sleeper.Close(); !errors.Is(err, dumpdir.ErrRevoked) {
			t.Errorf("the sleeper: %v, want ErrRevoked", err)
		}
	} else {
		lk, ok := sleeper.(*lock)
		if !ok {
			t.Fatal(sleeper)
		}
		close(lk.quit) // its connection is gone
		lk.done.Wait()
	}
	if err := l.Close(); err != nil {
		t.Errorf("the new holder: %v", err)
	}
}

// TestLostLock: a holder that lives finds out that the lock is another's, and does nothing more.
func TestLostLock(t *testing.T) { synctest.Test(t, testLostLock) }

func testLostLock(t *testing.T) {
	dir := t.TempDir()
	one := connect(dir, "one")
	l, err := one.Lock(".")
	if err != nil {
		t.Fatal(err)
	}
	file, err := one.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "other"), []byte("two 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, LockName)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(defaultTiming.beat + time.Second)
	if _, err := file.WriteAt([]byte("x"), 0); !errors.Is(err, dumpdir.ErrRevoked) {
		t.Errorf("a write: %v, want ErrRevoked", err)
	}
	if _, err := one.Create("g"); !errors.Is(err, dumpdir.ErrRevoked) {
		t.Errorf("a new file: %v, want ErrRevoked", err)
	}
	_, _ = file.Close(), l.Close() // both fail
	if text, err := os.ReadFile(filepath.Join(dir, LockName)); err != nil || ownerOf(string(text)) != "two" {
		t.Errorf("the lock of the other one: %q, %v", text, err)
	}
}

// TestHangIsNoSilence: a lock does not become stale while the server answers nobody, because its owner could not write either.
func TestHangIsNoSilence(t *testing.T) { synctest.Test(t, testHangIsNoSilence) }

func testHangIsNoSilence(t *testing.T) {
	dir := t.TempDir()
	one, two := connect(dir, "one"), connect(dir, "two")
	one.timing.beat = time.Hour
	if _, err := two.Lock("none"); err == nil {
		t.Fatal("a lock in a directory that is not there")
	}
	l, err := one.Lock(".")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := two.Lock("."); !errors.Is(err, dumpdir.ErrLocked) {
			t.Fatalf("the second: %v, want ErrLocked", err)
		}
		time.Sleep(2 * defaultTiming.stale) // the server hangs
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestEmptiedLock: a lock whose text a crash of the server took is still its owner's, who writes it again.
func TestEmptiedLock(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "zeros": strings.Repeat("\x00", 20)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				one := connect(dir, "one")
				l, err := one.Lock(".")
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(dir, LockName)
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				time.Sleep(defaultTiming.beat + time.Second)
				if got, err := os.ReadFile(file); err != nil || ownerOf(string(got)) != "one" {
					t.Errorf("the lock has %q, %v", got, err)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
