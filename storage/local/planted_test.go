package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/storagetest"
)

// plant puts links to a file that is not ours in the place of every temporary file, and a directory's, in dir.
func plant(t *testing.T, dir, precious string) {
	t.Helper()
	for _, name := range []string{
		dumpdir.JournalName, dumpdir.ManifestName, "SHA256SUMS", "pin.json", "verify.json", "report.json", "files.json", "vmcore-dmesg.txt", "vmcore-dmesg.txt.0", "vmcore-dmesg.txt.1",
	} {
		link := filepath.Join(dir, name+".tmp")
		if err := errors.Join(os.RemoveAll(link), os.Symlink(precious, link)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPlantedLinksAreNotFollowed has somebody who can write the data directory put links where temporary files are going to be,
// before root pins, verifies, seals and keeps: the file that they lead to stays as it is, and the work is done.
func TestPlantedLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, storage.OpenOptions{})
	m := dumpdirtest.NewMachine(7, 40, 16)
	storagetest.Receive(t, s, m, true)
	e := wantListed(t, s, 1)[0]
	for name, do := range map[string]func() error{
		"pin": func() error { return s.SaveSide(t.Context(), e.Ref, dumpdir.NewPin(time.Now(), "why"), nil) },
		"verification": func() error {
			return s.SaveSide(t.Context(), e.Ref, &dumpdir.Verification{Time: time.Now()}, &e.Manifest)
		},
		"report": func() error {
			f := dumpdir.NewStoredReport(&e.Manifest, dumpdir.ReportHead{}, []byte("{}"), time.Now())
			return s.SaveSide(t.Context(), e.Ref, f, &e.Manifest)
		},
		"resume and seal": func() error {
			w, err := s.Resume(t.Context(), e.Ref, storage.ResumeOptions{Reopen: true})
			if err != nil {
				return err
			}
			_, err = w.Seal(t.Context(), "once more")
			return errors.Join(err, w.Close())
		},
	} {
		e = wantListed(t, s, 1)[0] // another seal may be of another second
		plant(t, e.Path, precious)
		if err := do(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
			t.Errorf("%s: the file behind the links has %q, %v", name, b, err)
		}
	}
	if e := wantListed(t, s, 1)[0]; e.Pin == nil {
		t.Error("the pin is not there")
	}
}

// TestFIFOsInADump has a FIFO or a device in the place of a file of a dump: nothing waits for it, and it is damage.
func TestFIFOsInADump(t *testing.T) {
	for _, name := range []string{dumpdir.JournalName, dumpdir.ManifestName, "vmcore", "vmcore-dmesg.txt", "pin.json", "verify.json", "report.json", "files.json", "files/README", "SHA256SUMS"} {
		for kind, put := range map[string]func(string) error{
			"FIFO":   func(path string) error { return unix.Mkfifo(path, 0o600) },
			"device": func(path string) error { return os.Symlink("/dev/zero", path) },
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir, storage.OpenOptions{})
				m := dumpdirtest.NewMachine(7, 40, 16)
				storagetest.Receive(t, s, m, true)
				e := wantListed(t, s, 1)[0]
				w, err := s.Resume(t.Context(), e.Ref, storage.ResumeOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(w.Keep("README", strings.NewReader("read me")), w.Close()); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(e.Path, name)
				if err := errors.Join(os.RemoveAll(path), put(path)); err != nil {
					t.Fatal(err)
				}
				d, err := s.Open(t.Context(), e.Ref)
				if err != nil {
					if _, ok := errors.AsType[*dumpdir.DamageError](err); !ok {
						t.Errorf("not called damage: %v", err)
					}
					return
				}
				defer func() { _ = d.Close() }()
				rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
				if side := name == "pin.json" || name == "verify.json" || name == "report.json"; err != nil || rep.OK() != side {
					t.Errorf("verified: %+v, %v", rep, err)
				}
				wantListed(t, open(t, dir, storage.OpenOptions{ReadOnly: true}), 1)
			})
		}
	}
}

// TestTrashThatLeadsElsewhere has a link in the place of the directory that is emptied whenever a store is opened.
func TestTrashThatLeadsElsewhere(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	precious := filepath.Join(elsewhere, "precious")
	if err := errors.Join(os.WriteFile(precious, []byte("precious"), 0o600), os.Symlink(elsewhere, filepath.Join(dir, "trash"))); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, storage.OpenOptions{})
	if _, err := s.Reindex(t.Context()); err == nil {
		t.Error("reindex says nothing of it")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("what lies behind the link was deleted: %v", err)
	}
}
