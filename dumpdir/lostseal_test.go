package dumpdir_test

import (
	"bytes"
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/internal/race"
)

// contents returns all files of a dump directory.
func contents(t *testing.T, fsys *dumpdirtest.FS) map[string]string {
	t.Helper()
	names, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, name := range names {
		b, _ := fsys.Bytes(path.Join(dir, name))
		files[name] = string(b)
	}
	return files
}

// sealedDumps are dumps in every state that a seal leaves, also after one that was taken back.
func sealedDumps(t *testing.T) map[string]*dumpdirtest.FS {
	t.Helper()
	m := dumpdirtest.NewMachine(60, 40, 8)
	dumps := map[string]*dumpdirtest.FS{"complete": sealed(t, m, len(m.Chunks)), "partial": sealed(t, m, 3)}
	for name, chunks := range map[string]int{"complete after partial": len(m.Chunks), "partial after partial": 4} {
		fsys := dumps["partial"].Clone()
		w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{Reopen: true})
		if err != nil {
			t.Fatal(err)
		}
		putAll(t, w, m.Chunks[3:chunks])
		if _, err := w.Seal(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		dumps[name] = fsys
	}
	logOnly := dumpdirtest.NewFS()
	w, err := dumpdir.Create(logOnly, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = w.StoreLog(bytes.NewReader(m.Log))
	if err == nil {
		_, err = w.Seal(t.Context(), "test")
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	dumps["log-only"] = logOnly
	return dumps
}

// checkUntouched wants a dump that was sealed to be found damaged, and that nobody writes to it.
func checkUntouched(t *testing.T, fsys *dumpdirtest.FS, what string) {
	t.Helper()
	before := contents(t, fsys)
	for _, reopen := range []bool{false, true} {
		w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{Reopen: reopen})
		if err == nil {
			_ = w.Close()
		}
		if !dumpdir.IsSealedDamage(err) {
			t.Errorf("%s: resume (reopen %v): %v", what, reopen, err)
		}
	}
	if w, err := dumpdir.Create(fsys, dir, dumpdirtest.NewMachine(60, 1, 1).Meta, dumpdir.Options{}); err == nil {
		_ = w.Close()
		t.Errorf("%s: another dump was made over it", what)
	}
	after := contents(t, fsys)
	for name := range before {
		if after[name] != before[name] {
			t.Errorf("%s: %s was written", what, name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%s: %d files, had %d", what, len(after), len(before))
	}
	checkDamaged(t, fsys, what)
}

// checkDamaged wants Open to say damaged, and Verify to find the journal damaged and nothing wrong with vmcore.
func checkDamaged(t *testing.T, fsys *dumpdirtest.FS, what string) {
	t.Helper()
	d, err := dumpdir.Open(fsys, dir)
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	defer func() { _ = d.Close() }()
	if d.State() != dumpdir.StateDamaged || d.Damage() == nil {
		t.Errorf("%s: state %s, damage %v", what, d.State(), d.Damage())
	}
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err != nil {
		t.Fatalf("%s: verify: %v", what, err)
	}
	if rep.OK() || rep.State != dumpdir.StateDamaged {
		t.Errorf("%s: verify says %s, %d findings", what, rep.State, rep.Damaged)
	}
	for _, f := range rep.Findings {
		if f.File != dumpdir.JournalName {
			t.Errorf("%s: found %+v", what, f)
		}
	}
}

// TestSealedDumpWhoseJournalLostItsEnd cuts the journal of sealed dumps at every length, as an interrupted copy or a file
// system check does.
func TestSealedDumpWhoseJournalLostItsEnd(t *testing.T) {
	for name, clean := range sealedDumps(t) {
		t.Run(name, func(t *testing.T) {
			j, _ := clean.Bytes(path.Join(dir, dumpdir.JournalName))
			for n := 0; n < len(j); n += 3 * race.Stride(23) {
				fsys := clean.Clone()
				fsys.SetBytes(path.Join(dir, dumpdir.JournalName), j[:n])
				checkUntouched(t, fsys, "cut")
				if t.Failed() {
					t.Fatalf("journal of %d bytes cut to %d", len(j), n)
				}
			}
		})
	}
}

// TestSealedDumpWithBadSectorInJournal zeroes the end of the journal, as a sector that was lost does, with one sign of the seal left
// at a time.
func TestSealedDumpWithBadSectorInJournal(t *testing.T) {
	signs := map[string][]string{
		"manifest": {dumpdir.SumsName}, "SHA256SUMS": {dumpdir.ManifestName},
		"name of vmcore": {dumpdir.SumsName, dumpdir.ManifestName},
	}
	for name, clean := range sealedDumps(t) {
		for sign, gone := range signs {
			if sign == "name of vmcore" && name == "log-only" {
				continue // it has none
			}
			fsys := clean.Clone()
			j, _ := fsys.Bytes(path.Join(dir, dumpdir.JournalName))
			clear(j[max(0, len(j)-300):])
			fsys.SetBytes(path.Join(dir, dumpdir.JournalName), j)
			for _, name := range gone {
				if err := fsys.Remove(path.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			before := contents(t, fsys)
			if w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{Reopen: true}); !dumpdir.IsSealedDamage(err) {
				t.Errorf("%s, with the %s left: resume: %v", name, sign, err)
				if err == nil {
					_ = w.Close()
				}
			}
			if after := contents(t, fsys); strings.Join(values(after), "") != strings.Join(values(before), "") {
				t.Errorf("%s, with the %s left: something was written", name, sign)
			}
		}
	}
}

func values(files map[string]string) []string {
	var all []string
	for _, name := range []string{
		dumpdir.JournalName, dumpdir.ManifestName, dumpdir.SumsName, dumpdir.VMCoreName, dumpdir.IncompleteName, dumpdir.LogName,
	} {
		all = append(all, name, files[name])
	}
	return all
}

// TestDumpWithoutJournal removes the journal, empties it, and destroys its header.
func TestDumpWithoutJournal(t *testing.T) {
	for name, clean := range sealedDumps(t) {
		fsys := clean.Clone()
		if err := fsys.Remove(path.Join(dir, dumpdir.JournalName)); err != nil {
			t.Fatal(err)
		}
		checkUntouched(t, fsys, name+" without chunks")
		if _, err := dumpdir.EndsSealed(fsys, dir); err == nil {
			t.Errorf("%s: a journal that is missing ends with something", name)
		}
		fsys = clean.Clone()
		for i := range int64(16) {
			flip(t, fsys, dumpdir.JournalName, i, 1)
		}
		checkUntouched(t, fsys, name+" without a header")
	}
}

// TestDirectoryWithoutDump is one where a new dump was being made: it is no damaged one.
func TestDirectoryWithoutDump(t *testing.T) {
	m := dumpdirtest.NewMachine(61, 20, 8)
	fsys := dumpdirtest.NewFS()
	if err := start(t, fsys, dir, m).Close(); err != nil {
		t.Fatal(err)
	}
	manifest, _ := fsys.Bytes(path.Join(dir, dumpdir.ManifestName))
	early := dumpdirtest.NewFS()
	if err := early.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	early.SetBytes(path.Join(dir, dumpdir.ManifestName), manifest)
	if _, err := dumpdir.Open(early, dir); !errors.Is(err, dumpdir.ErrNotExist) {
		t.Errorf("open before the journal was there: %v", err)
	}
	w, err := dumpdir.Create(early, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatalf("create again: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestEndsSealed asks every prefix of a journal whether it ends with a seal.
func TestEndsSealed(t *testing.T) {
	for name, fsys := range sealedDumps(t) {
		j, _ := fsys.Bytes(path.Join(dir, dumpdir.JournalName))
		if ok, err := dumpdir.EndsSealed(fsys, dir); !ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
		fsys.SetBytes(path.Join(dir, dumpdir.JournalName), j[:len(j)-1])
		if ok, err := dumpdir.EndsSealed(fsys, dir); ok || err != nil {
			t.Errorf("%s without its last byte: %v, %v", name, ok, err)
		}
	}
}

// TestManifestVersionDamaged flips each bit of the version in manifest.json, of sealed and arriving dumps.
func TestManifestVersionDamaged(t *testing.T) {
	dumps := sealedDumps(t)
	m := dumpdirtest.NewMachine(62, 20, 8)
	arriving := dumpdirtest.NewFS()
	w := start(t, arriving, dir, m)
	putAll(t, w, m.Chunks[:1])
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dumps["arriving"] = arriving
	for name, fsys := range dumps {
		b, _ := fsys.Bytes(path.Join(dir, dumpdir.ManifestName))
		at := bytes.Index(b, []byte(`"version": 1`)) + len(`"version": `)
		for bit := range 8 {
			flip(t, fsys, dumpdir.ManifestName, int64(at), bit)
			d, err := dumpdir.Open(fsys, dir)
			if err != nil {
				t.Fatalf("%s, bit %d: open: %v", name, bit, err)
			}
			rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
			if err != nil || rep.OK() || rep.Findings[0].File != dumpdir.ManifestName {
				t.Errorf("%s, bit %d: %+v, %v", name, bit, rep, err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			flip(t, fsys, dumpdir.ManifestName, int64(at), bit)
		}
	}
}

// TestManifestOfALaterVersion is for SHA256SUMS to vouch for.
func TestManifestOfALaterVersion(t *testing.T) {
	m := dumpdirtest.NewMachine(63, 20, 8)
	fsys := sealed(t, m, len(m.Chunks))
	b, _ := fsys.Bytes(path.Join(dir, dumpdir.ManifestName))
	later := bytes.Replace(b, []byte(`"version": 1`), []byte(`"version": 2`), 1)
	fsys.SetBytes(path.Join(dir, dumpdir.ManifestName), later)
	sums, _ := fsys.Bytes(path.Join(dir, dumpdir.SumsName))
	text := strings.Replace(string(sums), hexSum(b), hexSum(later), 1)
	fsys.SetBytes(path.Join(dir, dumpdir.SumsName), []byte(text))
	if _, err := dumpdir.Open(fsys, dir); !errors.Is(err, dumpdir.ErrUnsupported) {
		t.Errorf("open: %v", err)
	}
}

// TestCompleteDumpIsNotRepaired lets a sender come back to a complete dump of which a page is damaged, or that has garbage behind its
// journal: there is nothing for it to bring, and what is damaged is for the verifier to name.
func TestCompleteDumpIsNotRepaired(t *testing.T) {
	m := dumpdirtest.NewMachine(64, 40, 8)
	clean := sealed(t, m, len(m.Chunks))
	for name, harm := range map[string]func(fsys *dumpdirtest.FS){
		"page": func(fsys *dumpdirtest.FS) { flip(t, fsys, dumpdir.VMCoreName, regionsOf(t, clean, 40).firstPage+5, 2) },
		"garbage": func(fsys *dumpdirtest.FS) {
			j, _ := fsys.Bytes(path.Join(dir, dumpdir.JournalName))
			fsys.SetBytes(path.Join(dir, dumpdir.JournalName), append(j, make([]byte, 100)...))
		},
		"record": func(fsys *dumpdirtest.FS) {
			j, _ := fsys.Bytes(path.Join(dir, dumpdir.JournalName))
			flip(t, fsys, dumpdir.JournalName, int64(len(j)-200), 2)
		},
	} {
		fsys := clean.Clone()
		harm(fsys)
		before := contents(t, fsys)
		w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{Reopen: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if res, ok := w.Result(); !ok || res.State != dumpdir.StateComplete {
			t.Errorf("%s: result %+v", name, res)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if after := contents(t, fsys); strings.Join(values(after), "") != strings.Join(values(before), "") {
			t.Errorf("%s: something was written", name)
		}
		if rep := verify(t, fsys, dir); rep.OK() {
			t.Errorf("%s: no damage is found any more", name)
		}
	}
}

// sealsMeanwhile is a file system on which the dump is sealed just before somebody reads its manifest.
type sealsMeanwhile struct {
	*dumpdirtest.FS
	seal func()
}

func (f *sealsMeanwhile) Open(name string) (dumpdir.File, error) {
	if seal := f.seal; path.Base(name) == dumpdir.ManifestName && seal != nil {
		f.seal = nil
		seal()
	}
	return f.FS.Open(name)
}

// TestOpenJustBeforeADumpIsSealed reads the journal before the seal and the manifest behind it.
func TestOpenJustBeforeADumpIsSealed(t *testing.T) {
	m := dumpdirtest.NewMachine(66, 20, 8)
	fsys := dumpdirtest.NewFS()
	w := start(t, fsys, dir, m)
	putAll(t, w, m.Chunks)
	d, err := dumpdir.Open(&sealsMeanwhile{FS: fsys, seal: func() {
		if _, err := w.Seal(t.Context(), ""); err != nil {
			t.Error(err)
		}
	}}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if d.State() != dumpdir.StateComplete || d.Damage() != nil {
		t.Errorf("%s: %v", d.State(), d.Damage())
	}
}

// TestOpenWhileADumpIsSealed opens a dump again and again while another process seals it and takes it up again: it never seems to have
// lost its seal.
func TestOpenWhileADumpIsSealed(t *testing.T) {
	m := dumpdirtest.NewMachine(65, 20, 8)
	fsys := sealed(t, m, 1)
	done := make(chan error)
	go func() {
		for range 200 {
			w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{Reopen: true})
			if err == nil {
				_, err = w.Seal(t.Context(), "again")
				err = errors.Join(err, w.Close())
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
		d, err := dumpdir.Open(fsys, dir)
		if err != nil {
			t.Error(err)
			continue
		}
		if dumpdir.IsSealedDamage(d.Damage()) {
			t.Errorf("damaged: %v", d.Damage())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}
