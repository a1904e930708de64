package sender

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender/localfs"
)

// fileTarget makes the local directory where sftpDump looks below dir, and returns it as a target.
func fileTarget(t *testing.T, dir string) string {
	t.Helper()
	root := filepath.Join(dir, defaultRoot)
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	return "file://" + root
}

// fileOptions are those of a dump to local directories.
func fileOptions(t *testing.T, to ...string) Options {
	t.Helper()
	o := options(newFakeReceiver(t))
	o.To, o.Dial, o.Level = to, DialFile("test 1", OpenMounted), 0
	return o
}

// TestSendFile sends into a local directory, and once more.
func TestSendFile(t *testing.T) {
	src, _ := newFakeSource(t)
	dir := t.TempDir()
	o := fileOptions(t, fileTarget(t, dir))
	res, err := Send(t.Context(), src, o)
	if err != nil {
		t.Fatal(err)
	}
	plan := mustPlan(t, src, o)
	if n := sftpPages(t, sftpDump(t, dir), plan); res.State != protocol.StateComplete || uint64(n) != plan.Sum.Kept {
		t.Errorf("%s, %d pages, want %d", res.State, n, plan.Sum.Kept)
	}
	if again, err := Send(t.Context(), src, o); err != nil || !again.Known || again.ID != res.ID {
		t.Errorf("sent once more: %+v, %v, want it to be known", again, err)
	}
}

// smallDisk is a directory on a disk with room for so many bytes.
type smallDisk struct {
	*localfs.FS
	room int64
}

// Free counts what the dump takes.
func (d smallDisk) Free(dir string) (int64, error) {
	left := d.room
	names, err := d.ReadDir(dir)
	for _, name := range names {
		f, openErr := d.Open(dir + "/" + name)
		if openErr != nil {
			return 0, openErr
		}
		n, sizeErr := f.Size()
		left -= n
		err = errors.Join(err, sizeErr, f.Close())
	}
	return left, err
}

// TestFileFull: a full disk makes way for the next target. If there is none, what arrived is sealed, at once where nobody can
// make room.
func TestFileFull(t *testing.T) {
	for _, alone := range []bool{false, true} {
		src, _ := newFakeSource(t)
		small, large := t.TempDir(), t.TempDir()
		o := fileOptions(t, fileTarget(t, small))
		o.Dial = dialFile("test 1", OpenMounted, func(f *localfs.FS) dumpdir.FS {
			if strings.HasPrefix(f.Root(), small) {
				return smallDisk{f, 6 << 20}
			}
			return f
		})
		o.Encoding, o.Patience, o.Stubborn = "none", time.Hour, true
		o.Final = func(target string) bool { return strings.HasPrefix(target, "file:") }
		if !alone {
			o.To = append(o.To, fileTarget(t, large))
		}
		res, err := Send(t.Context(), src, o)
		if err != nil {
			t.Fatal(err)
		}
		plan := mustPlan(t, src, o)
		part := filepath.Join(small, defaultRoot, dumpdir.DumpsName, "*", "*", dumpdir.IncompleteName)
		switch {
		case !alone:
			if n := sftpPages(t, sftpDump(t, large), plan); res.State != protocol.StateComplete || uint64(n) != plan.Sum.Kept {
				t.Errorf("on the next target: %s, %d pages, want %d", res.State, n, plan.Sum.Kept)
			}
			if left, _ := filepath.Glob(part); len(left) != 1 {
				t.Errorf("the part on the full disk: %q", left)
			}
		default:
			if n := sftpPages(t, sftpDump(t, small), plan); res.State != protocol.StatePartial || uint64(n) != res.Pages || n == 0 {
				t.Errorf("%s, %d pages, want %d", res.State, n, res.Pages)
			}
			if said := res.String(); !strings.Contains(said, "the disk is full") || !strings.Contains(said, small) || strings.Contains(said, "peer") {
				t.Errorf("it does not say why, or not of which disk: %s", res)
			}
		}
	}
}

// TestFileRoomLater: the try that a sender waits for comes, also if its patience ends while it waits.
func TestFileRoomLater(t *testing.T) { synctest.Test(t, testFileRoomLater) }

func testFileRoomLater(t *testing.T) {
	src, _ := newFakeSource(t)
	dir := t.TempDir()
	o := fileOptions(t, fileTarget(t, dir))
	o.Encoding, o.Patience = "none", 2*time.Second
	start := time.Now()
	o.Dial = dialFile("test 1", OpenMounted, func(f *localfs.FS) dumpdir.FS {
		if time.Since(start) < 10*time.Second {
			return smallDisk{f, 3 << 20}
		}
		return f
	})
	res, err := Send(t.Context(), src, o)
	if err != nil || res.State != protocol.StateComplete || res.Sessions != 2 {
		t.Errorf("%+v, %v, want it complete with the second session", res, err)
	}
}

// failingDisk is a directory on a disk whose first fsync of page data fails.
type failingDisk struct {
	*localfs.FS
	syncs *atomic.Int32
}

type failingFile struct {
	dumpdir.File
	disk failingDisk
}

func (d failingDisk) Create(name string) (dumpdir.File, error) {
	f, err := d.FS.Create(name)
	if filepath.Base(name) != dumpdir.IncompleteName {
		return f, err
	}
	return failingFile{f, d}, err
}

func (f failingFile) Sync() error {
	if f.disk.syncs.Add(1) == 1 {
		return &fs.PathError{Op: "sync", Path: "vmcore-incomplete", Err: syscall.EIO}
	}
	return f.File.Sync()
}

// TestFileFailingDisk: after a failed fsync, the sender sends what was not acknowledged again.
func TestFileFailingDisk(t *testing.T) { synctest.Test(t, testFileFailingDisk) }

func testFileFailingDisk(t *testing.T) {
	src, _ := newFakeSource(t)
	dir := t.TempDir()
	o := fileOptions(t, fileTarget(t, dir))
	syncs := new(atomic.Int32)
	o.Dial = dialFile("test 1", OpenMounted, func(f *localfs.FS) dumpdir.FS { return failingDisk{f, syncs} })
	res, err := Send(t.Context(), src, o)
	if err != nil || res.State != protocol.StateComplete || res.Sessions < 2 {
		t.Fatalf("%+v, %v, want it complete in several sessions", res, err)
	}
	plan := mustPlan(t, src, o)
	if n := sftpPages(t, sftpDump(t, dir), plan); uint64(n) != plan.Sum.Kept {
		t.Errorf("%d pages, want %d", n, plan.Sum.Kept)
	}
}

// TestFileRefused: a directory that is none, is missing or is a link gets one line, with what to do.
func TestFileRefused(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	for path, has := range map[string]string{
		filepath.Join(dir, "none"): "no such file or directory", file: "not a directory", link: "not a directory",
	} {
		src, _ := fakeSourceOf(t, 50)
		_, err := Send(t.Context(), src, fileOptions(t, "file://"+path))
		var se *SendError
		if !errors.As(err, &se) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), has) || len(se.Hints()) != 1 {
			t.Errorf("%s: %v, %v", path, err, se)
		}
	}
}

// TestTargetLadders: "auto" stays light in a local directory, and makes no blocks for a file server. A named encoding is used as it is.
func TestTargetLadders(t *testing.T) {
	for name, tc := range map[string]struct {
		target target
		want   int
	}{"receiver": {target{}, 3}, "file server": {target{depot: true}, 2}, "disk": {target{depot: true, local: true}, 1}} {
		if got := tc.target.ladder(autoLadder); !slices.Equal(got, autoLadder[:tc.want]) {
			t.Errorf("%s: %v", name, got)
		}
		if got := tc.target.ladder(autoLadder[2:]); len(got) != 1 || got[0] != protocol.EncodingZstdBlock {
			t.Errorf("%s, blocks alone: %v", name, got)
		}
	}
}
