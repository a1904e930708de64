package dumpdir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Limits of the files kept beside a dump.
const (
	MaxKept      = 64 // files
	MaxKeptBytes = 1 << 40
	maxKeptName  = 200
)

// ErrBadKeptName says that a kept file may not have this name.
var ErrBadKeptName = errors.New("no name for a file of a dump")

// KeptFile is a file that the sender sent with its dump. It is not part of the dump.
type KeptFile struct {
	Name   string    `json:"name"` // in KeptDirName
	Size   int64     `json:"size"`
	SHA256 string    `json:"sha256"`
	Time   time.Time `json:"time"` // when it was stored
}

// keptList is files.json.
type keptList struct {
	Version int        `json:"version"`
	Files   []KeptFile `json:"files"`
}

// SideName implements SideFile.
func (*keptList) SideName() string { return KeptListName }

// Valid implements SideFile.
func (l *keptList) Valid() bool {
	return l.Version == SideFileVersion && len(l.Files) <= MaxKept && !slices.ContainsFunc(l.Files, func(f KeptFile) bool {
		sum, err := hex.DecodeString(f.SHA256)
		return !ValidKeptName(f.Name) || f.Size < 0 || err != nil || len(sum) != sha256.Size || !writable(f.Time)
	})
}

// path returns the name of the file relative to the dump's directory, as in SHA256SUMS.
func (f *KeptFile) path() string { return KeptDirName + "/" + f.Name }

func (f *KeptFile) sumLine() string { return f.SHA256 + "  " + f.path() + "\n" }

// ValidKeptName reports whether a kept file may have this name: 1 to 200 bytes of printable characters, without slash
// and backslash, without a dot at the start and .tmp at the end.
func ValidKeptName(name string) bool {
	return name != "" && len(name) <= maxKeptName && name == clean(name, maxKeptName) && !strings.ContainsAny(name, `/\`) &&
		name[0] != '.' && !strings.HasSuffix(name, tmpSuffix)
}

// KeptBytes returns the size of the kept files of the dump in dir, according to files.json. Errors are those of Kept.
func KeptBytes(fsys FS, dir string) (sum uint64, err error) {
	files, err := readKept(fsys, dir)
	for _, f := range files {
		sum += uint64(f.Size)
	}
	return sum, err
}

// readKept reads files.json; without it there are no kept files. Errors are a *DamageError, match ErrUnsupported, or
// come from the file system.
func readKept(fsys FS, dir string) ([]KeptFile, error) {
	l, err := ReadSideFile[keptList](fsys, dir)
	if err != nil || l == nil {
		return nil, err
	}
	return l.Files, nil
}

// Kept returns the kept files of the dump.
func (d *Dump) Kept() ([]KeptFile, error) { return readKept(d.fs, d.dir) }

// Keep stores a file beside the dump, sealed or not. It replaces a file of the same name. On return the file is
// durable, and so is its line in SHA256SUMS if the dump is sealed. r must not wait for a peer, because it blocks all
// other writes. Errors match ErrBadKeptName, or come from r or the disk. The writer stays usable.
func (w *Writer) Keep(name string, r io.Reader) error {
	c := w.c
	if !ValidKeptName(name) {
		return fmt.Errorf("%q: %w", name, ErrBadKeptName)
	}
	if err := c.enter(w); err != nil {
		return err
	}
	defer c.commitMu.Unlock()
	kept, err := readKept(c.fs, c.dir)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(kept, func(f KeptFile) bool { return f.Name == name })
	if at < 0 && len(kept) >= MaxKept {
		return fmt.Errorf("%w: %d files are kept already", ErrBadKeptName, len(kept))
	}
	f, err := c.storeKept(name, r)
	if err != nil {
		return err
	}
	if at < 0 {
		kept = append(kept, f)
	} else {
		kept[at] = f
	}
	if err := SaveSideFile(c.fs, c.dir, &keptList{Version: SideFileVersion, Files: kept}); err != nil {
		return err
	}
	if c.seal == nil {
		return nil
	}
	return c.sumKept()
}

// storeKept writes the file itself. Until files.json is written too, a replaced file does not match its entry. The
// next Keep of the same file corrects this.
func (c *core) storeKept(name string, r io.Reader) (KeptFile, error) {
	dir := c.path(KeptDirName)
	if err := c.fs.MkdirAll(dir); err != nil {
		return KeptFile{}, err
	}
	tmp := path.Join(dir, name+tmpSuffix)
	f, err := c.fs.Create(tmp)
	if err != nil {
		return KeptFile{}, err
	}
	sum := sha256.New()
	size, err := io.Copy(io.NewOffsetWriter(f, 0), io.TeeReader(io.LimitReader(r, MaxKeptBytes), sum))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return KeptFile{}, errors.Join(err, ignoreNotExist(c.fs.Remove(tmp)))
	}
	if err := c.fs.Rename(tmp, path.Join(dir, name)); err != nil {
		return KeptFile{}, err
	}
	kept := KeptFile{Name: name, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil)), Time: time.Now().UTC().Truncate(time.Second)}
	return kept, c.fs.SyncDir(dir)
}

// sumKept updates the lines of kept files in SHA256SUMS of a sealed dump from files.json. All other lines stay: their
// files may be damaged meanwhile.
func (c *core) sumKept() error {
	kept, err := readKept(c.fs, c.dir)
	if err != nil || len(kept) == 0 {
		return ignoreDamage(err)
	}
	old, err := readSmall(c.fs, c.path(SumsName), maxSumsLen)
	if err != nil {
		return ignoreDamage(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(old)) {
		if !strings.Contains(line, "  "+KeptDirName+"/") {
			b.WriteString(line)
		}
	}
	for _, f := range kept {
		b.WriteString(f.sumLine())
	}
	if b.String() == string(old) {
		return nil
	}
	return SaveFile(c.fs, c.dir, SumsName, []byte(b.String()))
}

// ignoreDamage leaves damage to the verifier.
func ignoreDamage(err error) error {
	if isDamage(err) {
		return nil
	}
	return err
}

// cleanKept removes unfinished files.
func (c *core) cleanKept() error {
	files, err := c.fs.ReadDir(c.path(KeptDirName))
	if err := ignoreNotExist(err); err != nil {
		return err
	}
	for _, name := range files {
		if strings.HasSuffix(name, tmpSuffix) {
			if err := ignoreNotExist(c.fs.Remove(c.path(path.Join(KeptDirName, name)))); err != nil {
				return err
			}
		}
	}
	return nil
}

// keptFiles compares kept files with files.json.
func (v *verifier) keptFiles() error {
	kept, err := readKept(v.d.fs, v.d.dir)
	if isDamage(err) {
		v.find(Finding{File: KeptListName, Offset: -1, Where: "files", Text: err.Error()})
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range kept {
		size, sum, err := hashFile(v.d.fs, path.Join(v.d.dir, f.path()), v.ctx.Err)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			v.find(Finding{File: f.path(), Offset: -1, Where: "files", Text: "missing"})
		case isDamage(err):
			v.find(Finding{File: f.path(), Offset: -1, Where: "files", Text: err.Error()})
		case err != nil:
			return err
		case size != f.Size:
			v.find(Finding{File: f.path(), Offset: min(size, f.Size), Where: "files", Text: fmt.Sprintf("%d bytes long, not %d", size, f.Size)})
		case hex.EncodeToString(sum[:]) != f.SHA256:
			v.find(Finding{File: f.path(), Offset: -1, Where: "files", Text: "SHA-256 is not the one in " + KeptListName})
		}
	}
	return nil
}
