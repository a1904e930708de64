package initrd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/corehaul/corehaul/sender/config"
)

// otherImage is the layout in an image with a system of its own. Its tools compress and index what is below /lib/modules, so that the modules
// have a directory of their own.
var otherImage = layout{init: "usr/bin/corehaul-send", modules: "usr/lib/corehaul"}

// Embed writes the files that Pack packs below dir, the tree of another image, such as that of kdump, for `corehaul-send capture`. The
// program is /usr/bin/corehaul-send there. words, in the form of the kernel command line, change the configuration as the words of that
// do. A file that the image has already, such as /bin/sh, stays, unless it is from an earlier Embed. Nothing is written outside of dir,
// whatever links it has. After an error, a part may be there.
func Embed(dir string, o Options, words []string) (*Report, error) {
	p, err := collect(o, otherImage)
	if err != nil {
		return nil, err
	}
	p.file(rel(config.WordsPath), []byte(strings.Join(words, " ")+"\n"), 0o600)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("the tree of the image: %w", err)
	}
	defer func() { _ = root.Close() }()
	if err := p.placeAll(root); err != nil {
		return nil, fmt.Errorf("the tree of the image, %s: %w", dir, err)
	}
	p.report.Files = len(p.records)
	return p.report, nil
}

// placeAll writes the program last: without it, what starts it in the image goes on, and with it all that it needs is there.
func (p *packer) placeAll(root *os.Root) error {
	var program cpio.Record
	for _, r := range p.sorted() {
		if r.Name == p.init {
			program = r
			continue
		}
		if err := p.place(root, r); err != nil {
			return err
		}
	}
	return p.place(root, program)
}

// place writes one file or directory.
func (p *packer) place(root *os.Root, r cpio.Record) error {
	if r.Mode&cpio.S_IFMT == cpio.S_IFDIR {
		if err := root.Mkdir(r.Name, 0o755); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	}
	if p.ours(r.Name) {
		if err := root.Remove(r.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := root.OpenFile(r.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // the image has its own
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // for errors; the other Close is checked
	if _, err := io.Copy(f, io.NewSectionReader(r, 0, int64(r.FileSize))); err != nil {
		return err
	}
	if err := f.Chmod(fs.FileMode(r.Mode) & fs.ModePerm); err != nil {
		return err
	}
	return f.Close()
}

// ours reports whether only Embed writes a file.
func (p *packer) ours(name string) bool {
	for _, dir := range []string{p.modules, rel(path.Dir(config.Path)), rel(path.Dir(config.ProgramPath("program")))} {
		if strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return name == p.init || name == "shell"
}
