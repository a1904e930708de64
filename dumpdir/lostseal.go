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

// A seal is durable in the journal before vmcore gets its name and before manifest and SHA256SUMS mention the seal.
// The journal also records a seal that is taken back. So if files mention a seal that the journal does not have, no
// kill or power cut did that: the journal has lost its end, or is lost.

// sealedState reports whether s is the state of a sealed dump.
func sealedState(s State) bool { return s == StateComplete || s == StatePartial || s == StateLogOnly }

// lostSeal returns a *DamageError if the files of a directory mention a seal that the journal does not have. m is the
// manifest, nil if it cannot be read. Other errors come from the file system.
func lostSeal(fsys FS, dir string, names []string, jr *journal, m *Manifest) error {
	sums := ""
	if slices.Contains(names, SumsName) {
		b, err := readSmall(fsys, path.Join(dir, SumsName), maxSumsLen)
		if err := ignoreNotExist(ignoreDamage(err)); err != nil { // a writer removes SHA256SUMS when it takes back a seal
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

// sumsOf reports whether sums may be the SHA256SUMS of a dump with this seal. It may be that of a seal that was taken
// back, if a server lost the removal in a power cut.
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

// claimsSeal reports whether the files say that the dump was sealed, without a readable journal.
func claimsSeal(names []string, m *Manifest) bool {
	return slices.Contains(names, SumsName) || slices.Contains(names, VMCoreName) || m != nil && sealedState(m.State)
}

// lostJournal returns a *DamageError if a directory has no journal, but files that are written only after it. The
// manifest of an unsealed dump is written before it.
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

// EndsSealed reports whether the journal of the dump in dir ends with an intact seal. It reads a few hundred bytes,
// for a store that lists many dumps. The error comes from the file system. Without a journal it matches
// fs.ErrNotExist.
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

// readNames returns the names in a directory and its manifest, nil if it cannot be read.
func readNames(fsys FS, dir string) (names []string, m *Manifest, err error) {
	if names, err = fsys.ReadDir(dir); err != nil {
		return nil, nil, err
	}
	m, err = readManifest(fsys, path.Join(dir, ManifestName))
	if err != nil {
		m = nil // missing, damaged or of another version: the other files decide
	}
	return names, m, nil
}

// judgeVersion decides whether a manifest has another version or its version is damaged. A matching line of
// SHA256SUMS proves another version. Without SHA256SUMS, the manifest has the version of this program, because the
// journal has.
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

// keepSealed returns the error of loading the journal, or a *DamageError if the journal has lost the seal, before
// anything is written.
func (c *core) keepSealed(names []string, jr *journal, loaded error) error {
	m, err := readManifest(c.fs, c.path(ManifestName))
	if err != nil {
		m = nil // the other files decide
	}
	if d, ok := errors.AsType[*DamageError](loaded); ok && d.File == JournalName {
		d.Sealed = claimsSeal(names, m)
	}
	if loaded != nil {
		return loaded
	}
	return lostSeal(c.fs, c.dir, names, jr, m)
}

// lostJournal returns a *DamageError if the directory has lost its journal.
func (c *core) lostJournal(names []string) error {
	_, m, err := readNames(c.fs, c.dir)
	if err != nil {
		return err
	}
	return lostJournal(names, m)
}
