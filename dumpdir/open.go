package dumpdir

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/corehaul/corehaul/vmcore"
)

// Dump is a dump directory opened for reading, sealed or arriving. It has the state at the time of Open.
type Dump struct {
	fs  FS
	dir string
	jf  File
	jr  *journal
	m   *Manifest

	damage error
	lost   bool // the seal or the journal is lost: the manifest counts
}

// Open opens the dump in dir. If the manifest is damaged, the journal supplies its contents. If the journal is
// damaged, missing, or has lost the seal, the manifest counts and the state is StateDamaged. Damage returns such
// damage. The error matches ErrNotExist or ErrUnsupported, or is a *DamageError if neither journal nor manifest can
// be read.
func Open(fsys FS, dir string) (*Dump, error) {
	for try := 1; ; try++ {
		d, err := openOnce(fsys, dir)
		if err != nil || d.jr == nil || !d.lost || try == openTries {
			return d, err
		}
		// Open read the journal before the manifest, so the dump may have been sealed in between: try again. A dump
		// that has lost its seal stays so.
		if err := d.Close(); err != nil {
			return nil, err
		}
	}
}

// openTries bounds the attempts to open a dump that seems to have lost its seal. A dump that is sealed and reopened
// all the time could seem so each time.
const openTries = 5

func openOnce(fsys FS, dir string) (*Dump, error) {
	jf, err := fsys.Open(path.Join(dir, JournalName))
	if errors.Is(err, fs.ErrNotExist) {
		return openWithoutJournal(fsys, dir, err)
	}
	if err != nil {
		return nil, err
	}
	d := &Dump{fs: fsys, dir: dir, jf: jf}
	if err := d.load(); err != nil {
		return nil, errors.Join(err, jf.Close())
	}
	return d, nil
}

// openWithoutJournal opens a dump whose journal is lost.
func openWithoutJournal(fsys FS, dir string, missing error) (*Dump, error) {
	names, m, err := readNames(fsys, dir)
	if err != nil {
		return nil, notExist(dir, err)
	}
	damage := lostJournal(names, m)
	switch {
	case damage == nil:
		return nil, notExist(dir, missing)
	case m == nil:
		return nil, damage
	}
	d := &Dump{fs: fsys, dir: dir}
	d.setLost(m, damage)
	return d, nil
}

// setLost marks d as a dump whose manifest knows more than the journal.
func (d *Dump) setLost(m *Manifest, damage error) {
	d.m, d.damage, d.lost = m, damage, true
	d.m.State = StateDamaged
}

func (d *Dump) load() error {
	size, err := d.jf.Size()
	if err != nil {
		return err
	}
	m, merr := readManifest(d.fs, path.Join(d.dir, ManifestName))
	if errors.Is(merr, ErrUnsupported) {
		merr = d.judgeVersion(merr)
	}
	jr, err := loadJournal(d.jf, size, nil)
	if isDamage(err) && merr == nil {
		d.setLost(m, err)
		return nil
	}
	if err != nil {
		return err
	}
	names, err := d.fs.ReadDir(d.dir)
	if err != nil {
		return err
	}
	if err := lostSeal(d.fs, d.dir, names, jr, m); isDamage(err) {
		if m == nil || merr != nil || m.ID != jr.ident.id {
			m = manifestOf(jr)
			m.setCounts(&jr.count, jr.progress(), jr.pageSize())
		}
		d.jr = jr
		d.setLost(m, err)
		return nil
	} else if err != nil {
		return err
	}
	d.jr, d.m = jr, m
	if merr == nil && (m.ID != jr.ident.id || m.Host != jr.ident.host) {
		merr = manifestDamage("it is of dump %s of host %q, the journal of %s of %q", m.ID, m.Host, jr.ident.id, jr.ident.host)
	}
	switch {
	case isDamage(merr), errors.Is(merr, fs.ErrNotExist):
		d.damage, d.m = merr, manifestOf(jr)
	case merr != nil:
		return merr
	case jr.seal != nil && len(jr.broken) > 0:
		d.damage = journalDamage(jr.broken[0].off, "broken records in a sealed journal")
	}
	d.fill()
	return nil
}

// fill updates the manifest from the journal.
func (d *Dump) fill() {
	if d.jr.plan != nil && d.m.Plan == nil { // cut off between plan and manifest
		d.m.setPlan(d.jr.facts, d.jr.plan)
	}
	d.m.setCounts(&d.jr.count, d.jr.progress(), d.jr.pageSize())
	d.m.setSeal(d.jr.seal)
	if d.jr.log != nil {
		d.m.Bytes.Log = d.jr.log.size
	}
}

// Manifest returns the manifest, with state and counts of the journal.
func (d *Dump) Manifest() *Manifest { return d.m.clone() }

// Damage returns the damage of manifest or journal that Open found, or nil.
func (d *Dump) Damage() error { return d.damage }

// State returns the state according to the journal, or StateDamaged if the journal has lost the seal or cannot be
// read.
func (d *Dump) State() State { return d.m.State }

// Progress returns the durable counts: those of the manifest if the journal has lost its end.
func (d *Dump) Progress() Progress {
	if d.lost {
		p, b := &d.m.Pages, &d.m.Bytes
		return Progress{Planned: p.Planned, Present: p.Present, Zero: p.Zero, Bytes: b.VMCore}
	}
	return d.jr.progress()
}

// Erased returns the lines of makedumpfile's ERASEINFO note. Escape them before they go to a terminal.
func (d *Dump) Erased() []string {
	if d.jr == nil || d.jr.facts == nil {
		return nil
	}
	info := vmcore.Info{ByteOrder: d.jr.facts.order()}
	info.AddNotes(d.jr.facts.Notes)
	return info.Erased()
}

// VMCorePath returns the name of vmcore or vmcore-incomplete, with the directory. ok is false for a dump without
// pages.
func (d *Dump) VMCorePath() (name string, ok bool) {
	if d.m.Plan == nil && !d.lost {
		return "", false
	}
	for _, name := range []string{VMCoreName, IncompleteName} {
		if d.has(name) {
			return path.Join(d.dir, name), true
		}
	}
	return "", false
}

// has reports whether the directory has a file of this name.
func (d *Dump) has(name string) bool {
	names, err := d.fs.ReadDir(d.dir)
	return err == nil && slices.Contains(names, name)
}

// openVMCore opens the vmcore for reading, complete or not. The error matches fs.ErrNotExist if the dump has no
// pages.
func (d *Dump) openVMCore() (File, error) {
	name, ok := d.VMCorePath()
	if !ok {
		return nil, fmt.Errorf("%s: no vmcore: %w", d.dir, fs.ErrNotExist)
	}
	return d.fs.Open(name)
}

// OpenLog opens vmcore-dmesg.txt. The error matches fs.ErrNotExist if there is none.
func (d *Dump) OpenLog() (io.ReadCloser, error) {
	f, err := d.fs.Open(path.Join(d.dir, LogName))
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &fileReader{SectionReader: io.NewSectionReader(f, 0, size), f: f}, nil
}

// LogIntact reports whether the log of a sealed dump has its SHA-256 of the journal. It is true for an arriving dump,
// whose log may be replaced at any time, and for a log without a record.
func (d *Dump) LogIntact(ctx context.Context) (bool, error) {
	if d.jr == nil || d.jr.seal == nil || d.jr.log == nil {
		return true, nil
	}
	size, sum, err := hashFile(d.fs, path.Join(d.dir, LogName), ctx.Err)
	return err == nil && size == d.jr.log.size && sum == d.jr.log.sum, err
}

type fileReader struct {
	*io.SectionReader
	f File
}

func (r *fileReader) Close() error { return r.f.Close() }

// Close closes the dump.
func (d *Dump) Close() error {
	if d.jf == nil {
		return nil
	}
	return d.jf.Close()
}

// ReadID returns the id of the dump in dir from the first bytes of its journal, for a store that looks for one of
// many dumps. The error matches ErrNotExist or ErrUnsupported, or is a *DamageError.
func ReadID(fsys FS, dir string) (id string, err error) {
	f, err := fsys.Open(path.Join(dir, JournalName))
	if err != nil {
		return "", notExist(dir, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return "", err
	}
	b := make([]byte, min(size, journalHeaderLen+recordHeaderLen+512))
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return "", err
	}
	if _, err := checkJournalHeader(b); err != nil {
		return "", err
	}
	rec, err := newScanner(bytes.NewReader(b), int64(len(b))).at(journalHeaderLen)
	if err != nil || rec.typ != recIdent {
		return "", journalDamage(journalHeaderLen, "no ident record")
	}
	ident, ok := decodeIdent(rec.payload)
	if !ok {
		return "", journalDamage(journalHeaderLen, "ident record that makes no sense")
	}
	return ident.id, nil
}

// Intact reads vmcore and reports whether it has the SHA-256 of its seal. It is false for an unsealed dump.
// It calls tell, if that is not nil, with the number of bytes that it has read and reads.
func (d *Dump) Intact(ctx context.Context, tell func(done, total int64)) (bool, error) {
	want, err := d.sealSum()
	if err != nil || want == "" {
		return false, err
	}
	name, ok := d.VMCorePath()
	if !ok {
		return false, nil
	}
	f, err := d.fs.Open(name)
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	_, sum, err := hashReader(f, ctx.Err, tell)
	_ = f.Close() // only read
	if isMediumError(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	return hex.EncodeToString(sum[:]) == want, nil
}

// sealSum returns the SHA-256 of vmcore at its seal: from the journal, else from SHA256SUMS or the manifest.
func (d *Dump) sealSum() (string, error) {
	if !d.lost {
		return d.m.SHA256, nil
	}
	b, err := readSmall(d.fs, path.Join(d.dir, SumsName), maxSumsLen)
	if err := ignoreNotExist(ignoreDamage(err)); err != nil {
		return "", err
	}
	if sum, ok := ParseSums(string(b)).Of(VMCoreName); ok {
		return sum, nil
	}
	return d.m.SHA256, nil
}
