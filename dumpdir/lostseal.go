package dumpdir

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
)

// A seal is durable in the journal before vmcore gets its name and before manifest and SHA256SUMS speak of
// it, and a seal that is taken back is noted behind it. So files that tell of a seal which the journal does not have
// were not left by a kill or a power cut: the journal has lost its end, or all of it.

// sealedState reports whether s is the state of a sealed dump.
func sealedState(s State) bool { return s == StateComplete || s == StatePartial || s == StateLogOnly }

// lostSeal returns a *DamageError when the files of a directory tell of a seal that the journal does not have, else nil. m is
// the manifest, nil when there is none that can be read. Other errors are the file system's.
func lostSeal(fsys FS, dir string, names []string, jr *journal, m *Manifest) error {
	sums := ""
	if slices.Contains(names, SumsName) {
		b, err := readSmall(fsys, path.Join(dir, SumsName), maxSumsLen)
		if err := ignoreNotExist(ignoreDamage(err)); err != nil { // a writer removes it when it takes a seal back
			return err
		}
		sums = string(b)
		if !errors.Is(err, fs.ErrNotExist) && jr.seal == nil && !sumsOf(sums, jr.reopened) {
			return sealLost(jr, SumsName+" is there")
		}
	}
	if m != nil && sealedState(m.State) && !m.tellsOf(jr.seal) && !m.tellsOf(jr.reopened) {
		if vouched, err := sumVouches(fsys, dir, sums, ManifestName); err != nil || sums == "" || vouched || jr.seal == nil {
			return errors.Join(err, sealLost(jr, fmt.Sprintf("%s says %s", ManifestName, m.State)))
		}
	}
	if jr.seal != nil || !slices.Contains(names, VMCoreName) {
		return nil
	}
	if size, ok := sizeOf(fsys, path.Join(dir, VMCoreName)); jr.reopened == nil || ok && size != jr.reopened.size {
		return sealLost(jr, "the file has the name "+VMCoreName)
	}
	return nil
}

func sealLost(jr *journal, because string) error {
	at := jr.size
	if n := len(jr.broken); n > 0 && jr.broken[n-1].end == jr.size {
		at = jr.broken[n-1].off
	}
	return &DamageError{
		File: JournalName, Offset: at, Sealed: true,
		Text: fmt.Sprintf("the dump was sealed (%s), but the seal is not in the journal: it has lost its end", because),
	}
}

// tellsOf reports whether m is the manifest of a dump with this seal.
func (m *Manifest) tellsOf(s *sealRecord) bool {
	if s == nil {
		return false
	}
	var of Manifest
	of.setSeal(s)
	sameTime := (m.EndTime == nil) == (of.EndTime == nil) && (m.EndTime == nil || m.EndTime.Equal(*of.EndTime))
	return sameTime && m.State == of.State && m.SHA256 == of.SHA256
}

// sumsOf reports whether sums may be the SHA256SUMS of a dump with this seal. It is, of a seal that was taken back, where
// the server of a dump directory lost the removal in a power cut.
func sumsOf(sums string, s *sealRecord) bool {
	if s == nil {
		return false
	}
	have, ok := ParseSums(sums).Of(VMCoreName)
	if s.state == StateLogOnly {
		return !ok
	}
	return ok && have == hex.EncodeToString(s.sum[:])
}

// claimsSeal reports whether a directory without a journal that could be read is one of a dump that was sealed.
func claimsSeal(names []string, m *Manifest) bool {
	return slices.Contains(names, SumsName) || slices.Contains(names, VMCoreName) || m != nil && sealedState(m.State)
}

// lostJournal returns a *DamageError when a directory has no journal and files that come only after it, else nil. The
// manifest of a dump that is not sealed comes before it.
func lostJournal(names []string, m *Manifest) error {
	if slices.Contains(names, JournalName) {
		return nil
	}
	sealed := claimsSeal(names, m)
	if !sealed && !slices.Contains(names, IncompleteName) && !slices.Contains(names, LogName) {
		return nil
	}
	return &DamageError{File: JournalName, Offset: -1, Sealed: sealed, Text: "missing, with other files of the dump there"}
}

// EndsSealed reports whether the journal of the dump in dir ends with an intact seal. It reads a few hundred bytes, for a store that
// lists many dumps. The error is the file system's; without a journal it matches fs.ErrNotExist.
func EndsSealed(fsys FS, dir string) (sealed bool, err error) {
	f, err := fsys.Open(path.Join(dir, JournalName))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return false, err
	}
	const longest = recordHeaderLen + sealFixedLen + maxReason
	tail := make([]byte, min(size, longest))
	if n, err := f.ReadAt(tail, size-int64(len(tail))); n < len(tail) {
		return false, errors.Join(io.ErrUnexpectedEOF, err)
	}
	for at := 0; at+recordHeaderLen+sealFixedLen <= len(tail); at++ {
		rec := tail[at:]
		if n, ok := plausibleHeader(rec); !ok || recordType(le.Uint16(rec)) != recSeal || recordHeaderLen+n != len(rec) {
			continue
		}
		off := size - int64(len(rec))
		if recordSum(off, rec[:recordHeaderLen], rec[recordHeaderLen:]) == le.Uint32(rec[8:]) {
			return true, nil
		}
	}
	return false, nil
}

// readNames returns the names in a directory and its manifest, nil when that cannot be read.
func readNames(fsys FS, dir string) (names []string, m *Manifest, err error) {
	if names, err = fsys.ReadDir(dir); err != nil {
		return nil, nil, err
	}
	m, err = readManifest(fsys, path.Join(dir, ManifestName))
	if err != nil {
		m = nil // missing, damaged or of another version: the other files tell
	}
	return names, m, nil
}

// judgeVersion tells a manifest of another version from one with a damaged version: SHA256SUMS vouches for
// the former. Without one, the journal is of this version, and so is the manifest that its writer made.
func (d *Dump) judgeVersion(unsupported error) error {
	b, err := readSmall(d.fs, path.Join(d.dir, SumsName), maxSumsLen)
	if err := ignoreNotExist(ignoreDamage(err)); err != nil {
		return err
	}
	if vouched, err := sumVouches(d.fs, d.dir, string(b), ManifestName); vouched || err != nil {
		return errors.Join(unsupported, err)
	}
	return manifestDamage("%v, and no %s says that it is so", unsupported, SumsName)
}

// keepSealed returns the error of a journal that was loaded, and a *DamageError when it has lost the seal: before anything is
// written.
func (c *core) keepSealed(names []string, jr *journal, loaded error) error {
	m, err := readManifest(c.fs, c.path(ManifestName))
	if err != nil {
		m = nil // the other files tell
	}
	if d, ok := errors.AsType[*DamageError](loaded); ok && d.File == JournalName {
		d.Sealed = claimsSeal(names, m)
	}
	if loaded != nil {
		return loaded
	}
	return lostSeal(c.fs, c.dir, names, jr, m)
}

// lostJournal returns a *DamageError when the directory had a journal and has none.
func (c *core) lostJournal(names []string) error {
	_, m, err := readNames(c.fs, c.dir)
	if err != nil {
		return err
	}
	return lostJournal(names, m)
}
