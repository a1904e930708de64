package dumpdir

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// ownNames are the files of a dump that a path may name to mean the dump.
var ownNames = []string{VMCoreName, IncompleteName, LogName, JournalName, ManifestName, SumsName}

// AtPath finds the dump that a path on the local disk names: its directory, or one of its own files. It follows
// symbolic links. file is empty for the directory. ok is false for anything else. The named file of the dump need not
// exist any more.
func AtPath(name string) (dir, file string, ok bool) {
	real, err := filepath.EvalSymlinks(name)
	if os.IsNotExist(err) {
		if real, err = filepath.EvalSymlinks(filepath.Dir(name)); err == nil {
			real = filepath.Join(real, filepath.Base(name))
		}
	}
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return "", "", false
	}
	if info, err := os.Stat(real); err == nil && info.IsDir() {
		return real, "", isDumpDir(real)
	}
	dir, file = filepath.Split(real)
	dir = filepath.Clean(dir)
	return dir, file, slices.Contains(ownNames, file) && isDumpDir(dir)
}

// isDumpDir is IsDumpDir of a path. It follows links.
func isDumpDir(dir string) bool {
	return looksLikeDump(func(name string, n int) (string, bool) { return headOf(filepath.Join(dir, name), n) })
}

// IsDumpDir reports whether an open directory belongs to a dump, also if its journal or manifest is damaged or missing. A
// vmcore with a log beside it, as kdump leaves them, is no dump directory. It opens no links.
func IsDumpDir(dir *os.Root) bool {
	return looksLikeDump(func(name string, n int) (string, bool) {
		f, err := plainfile.OpenFileIn(dir, name, os.O_RDONLY)
		return headOfFile(f, err, n)
	})
}

// looksLikeDump is IsDumpDir for a directory of which headOf returns the first bytes of a file.
func looksLikeDump(headOf func(name string, n int) (head string, ok bool)) bool {
	head, ok := headOf(JournalName, len(journalMagic))
	if ok && head == journalMagic {
		return true
	}
	if head, ok = headOf(ManifestName, maxManifestLen+1); ok {
		if _, err := ParseManifest(strings.NewReader(head)); !isDamage(err) {
			return true
		}
	}
	head, _ = headOf(SumsName, maxSumsLen)
	sums := ParseSums(head)
	_, journal := sums.Of(JournalName)
	_, manifest := sums.Of(ManifestName)
	return journal && manifest
}

// headOf returns at most the first n bytes of a regular file.
func headOf(name string, n int) (head string, ok bool) {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return "", false
	}
	f, err := plainfile.Open(name)
	return headOfFile(f, err, n)
}

// headOfFile is headOf of a file that was opened, or could not be. It closes the file.
func headOfFile(f *os.File, err error, n int) (head string, ok bool) {
	if err != nil {
		return "", false
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return "", false
	}
	b := make([]byte, min(int64(n), info.Size()))
	k, _ := f.ReadAt(b, 0)
	return string(b[:k]), true
}
