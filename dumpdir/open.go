package dumpdir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
)

// Dump is a dump directory open for reading, sealed or arriving. What it says is as
// of Open.
type Dump struct {
	fs  FS
	dir string
	jf  File
	jr  *journal
	m   *Manifest

	damage  error
	claimed State // of the manifest, as it was read
}

// Open opens the dump in dir. A damaged manifest does not keep it from opening: what
// the journal knows is filled in, and Damage tells. The same goes for a damaged journal, when the
// manifest is whole: then the state is StateDamaged. The error matches ErrNotExist or ErrUnsupported.
func Open(fsys FS, dir string) (*Dump, error) {
	jf, err := fsys.Open(path.Join(dir, JournalName))
	if err != nil {
		return nil, notExist(dir, err)
	}
	d := &Dump{fs: fsys, dir: dir, jf: jf}
	if err := d.load(); err != nil {
		return nil, errors.Join(err, jf.Close())
	}
	return d, nil
}

func (d *Dump) load() error {
	size, err := d.jf.Size()
	if err != nil {
		return err
	}
	m, merr := readManifest(d.fs, path.Join(d.dir, ManifestName))
	jr, err := loadJournal(d.jf, size, nil)
	if isDamage(err) && merr == nil {
		d.m, d.damage = m, err
		d.m.State = StateDamaged
		return nil
	}
	if err != nil {
		return err
	}
	d.jr, d.m = jr, m
	if m != nil {
		d.claimed = m.State
	}
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

// fill brings the manifest up to what the journal says.
func (d *Dump) fill() {
	pageSize := 0
	if d.jr.plan != nil {
		pageSize = d.jr.plan.PageSize
		if d.m.Plan == nil { // cut off between plan and manifest
			d.m.setPlan(d.jr.facts, d.jr.plan)
		}
	}
	d.m.setCounts(&d.jr.count, d.jr.progress(), pageSize)
	d.m.setSeal(d.jr.seal)
	if d.jr.log != nil {
		d.m.Bytes.Log = d.jr.log.size
	}
}

func isDamage(err error) bool {
	_, ok := errors.AsType[*DamageError](err)
	return ok
}

// Dir returns the directory.
func (d *Dump) Dir() string { return d.dir }

// Manifest returns the manifest, with state and counts brought up to what the journal says.
func (d *Dump) Manifest() *Manifest { return d.m.clone() }

// Damage returns what Open found wrong with manifest or journal, nil when nothing.
func (d *Dump) Damage() error { return d.damage }

// State returns the state that the journal gives.
func (d *Dump) State() State { return d.m.State }

// Progress returns the durable counts.
func (d *Dump) Progress() Progress {
	if d.jr == nil {
		p, b := &d.m.Pages, &d.m.Bytes
		return Progress{Planned: p.Planned, Present: p.Present, Zero: p.Zero, Bytes: b.VMCore}
	}
	return d.jr.progress()
}

// VMCorePath returns the name of vmcore or vmcore-incomplete, with the directory;
// ok is false for a dump without pages.
func (d *Dump) VMCorePath() (name string, ok bool) {
	if d.m.Plan == nil {
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

// OpenVMCore opens the vmcore for reading, complete or not. The error matches fs.ErrNotExist when
// the dump has no pages.
func (d *Dump) OpenVMCore() (File, error) {
	name, ok := d.VMCorePath()
	if !ok {
		return nil, fmt.Errorf("%s: no vmcore: %w", d.dir, fs.ErrNotExist)
	}
	return d.fs.Open(name)
}

// OpenLog opens vmcore-dmesg.txt. The error matches fs.ErrNotExist when there is none.
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

type fileReader struct {
	*io.SectionReader
	f File
}

func (r *fileReader) Close() error { return r.f.Close() }

// Close closes the dump.
func (d *Dump) Close() error { return d.jf.Close() }

// ReadID returns the id of the dump in dir, from the first bytes of its journal: for a store that looks
// for one dump among many. The error matches ErrNotExist or ErrUnsupported, or is a *DamageError.
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
