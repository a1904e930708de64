package crashtree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/packed"
)

// directory is what one directory has.
type directory struct {
	place
	maxDict int64    // see Visitor
	images  []string // files that are dumps by their first bytes
	strange []string // files with the name of a dump that are none by their first bytes
	empty   []string // of strange
	logs    []string
	others  []string
	dirs    []string
	skipped []skipped
	grouped [][]string // images by dump, once they are
}

type skipped struct {
	name string
	err  error
}

func (d *directory) skip(name string, err error) { d.skipped = append(d.skipped, skipped{name, err}) }

// leastDump is the length of the shortest file that may be a dump, unless it is empty or has no extension. Files that people name for a
// dump, with its checksum or its length, are shorter.
const leastDump = 4096

// add sorts a regular file in.
func (d *directory) add(name string) {
	if dumpcopy.IsLog(name) {
		d.logs = append(d.logs, name)
		return
	}
	is, err := d.look(name)
	switch {
	case errors.Is(err, fs.ErrNotExist): // removed meanwhile
	case err != nil:
		d.skip(name, err)
	case is.image && !strings.HasPrefix(name, "opalcore"): // an ELF core, but that of POWER's firmware
		d.images = append(d.images, name)
	case dumpcopy.IsDump(name) && (is.size == 0 || is.size >= leastDump || is.packed || filepath.Ext(name) == ""):
		d.addStrange(name, is.size)
	case !dumpcopy.IsStatus(name):
		d.others = append(d.others, name)
	}
}

func (d *directory) addStrange(name string, size int64) {
	d.strange = append(d.strange, name)
	if size == 0 {
		d.empty = append(d.empty, name)
	}
}

// looks is what a look at a file tells.
type looks struct {
	image  bool // it is a dump by its first bytes
	packed bool // it is compressed as a whole
	size   int64
}

// look looks at the first bytes of a file.
func (d *directory) look(name string) (is looks, err error) {
	f, err := d.open(name)
	if err != nil {
		return is, err
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil {
		return is, err
	}
	is.size = st.Size()
	form, err := formOf(f)
	if err != nil {
		return is, err
	}
	if is.packed = form != packed.Plain; !is.packed {
		is.image, err = beginsLikeDump(f, is.size)
		return is, err
	}
	head, err := packedHead(f, is.size, form, d.maxDict)
	if err == nil {
		is.image, err = beginsLikeDump(bytes.NewReader(head), int64(len(head)))
	}
	return is, err
}

// beginsLikeDump reports whether a file is a dump by its first bytes.
func beginsLikeDump(f io.ReaderAt, size int64) (bool, error) {
	head := make([]byte, 16)
	n, err := f.ReadAt(head, 0)
	if ignoreEOF(err) != nil {
		return false, err
	}
	text := string(head[:n])
	if strings.HasPrefix(text, "\x7fELF") {
		return isKernelCore(f, size), nil
	}
	return strings.HasPrefix(text, flattened.Signature) || strings.HasPrefix(text, kdumpfile.Signature), nil
}

// isKernelCore reports whether an ELF file may have the memory of a machine.
func isKernelCore(f io.ReaderAt, size int64) bool {
	head := make([]byte, min(size, elfcore.HeadLen))
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return true // whoever reads it says why it cannot be read
	}
	return elfcore.KindOf(head[:n], true) == elfcore.KindKernel && !elfcore.IsProcess(f, size)
}

// dumps groups the files into dumps.
func (d *directory) dumps() []Found {
	images := d.finished()
	if len(images) == 0 {
		images = d.strange
	} else {
		d.skipStrange()
	}
	groups := d.groups(images)
	if len(groups) == 0 {
		if !d.hasLogOfCrash() || d.hidesDump() {
			return nil
		}
		groups = [][]string{nil}
	}
	var list []Found
	for _, g := range groups {
		f := Found{Dir: d.path, root: d.root, Images: g, Log: d.logOf(g, len(groups) == 1)}
		if len(groups) == 1 {
			f.Others = d.besides(f.Log)
		}
		list = append(list, f)
	}
	return list
}

// skipStrange leaves out the strange files, because the directory has a dump.
func (d *directory) skipStrange() {
	for _, name := range d.strange {
		why := fmt.Errorf("%w: %s", vmcore.ErrUnknownFormat, "it has the name of a dump only")
		if slices.Contains(d.empty, name) {
			why = errEmptyBeside
		}
		d.skip(name, why)
	}
}

// skipApport names the reports that apport makes of kernel dumps: linux-image-6.8.0-31-generic-202611250800.crash. Those beside a dump are kept
// with it.
func (d *directory) skipApport() {
	if len(d.images)+len(d.strange) > 0 {
		return
	}
	for _, name := range d.others {
		if strings.HasPrefix(name, "linux-image") && strings.HasSuffix(name, ".crash") {
			d.skip(name, errApport)
		}
	}
}

// hidesDump reports whether a file that was left out may be the dump to which a log belongs.
func (d *directory) hidesDump() bool {
	return slices.ContainsFunc(d.skipped, func(s skipped) bool { return dumpcopy.IsDump(s.name) || !IsLeftOut(s.err) })
}

// withFile returns the dump of one file, with its log; for a log, the dump that it belongs to. The other pieces of a --split set in the
// directory belong to it. It leaves out other files, because the directory may be anybody's.
func (d *directory) withFile(name string) (Found, error) {
	for _, s := range d.skipped {
		if s.name == name {
			return Found{}, s.err
		}
	}
	if d.grouped == nil {
		d.grouped = d.groups(d.images)
	}
	f := Found{Dir: d.path, root: d.root, Images: []string{name}, Alone: true}
	for _, g := range d.grouped {
		log := d.logOf(g, len(d.grouped) == 1)
		if log == name || slices.Contains(g, name) {
			f.Images, f.Log = g, log
			return f, nil
		}
	}
	if slices.Contains(d.logs, name) {
		f.Images, f.Log = nil, name
	}
	return f, nil
}

// finished returns the images without those that kdump did not finish, if it finished the same one by another name: vmcore or vmcore.flat
// for vmcore-incomplete, dump.STAMP for dump-incomplete. After a failure, Debian's kdump copies the memory a second time.
func (d *directory) finished() []string {
	done := slices.DeleteFunc(slices.Clone(d.images), dumpcopy.IsUnfinished)
	list := slices.Clone(d.images)
	return slices.DeleteFunc(list, func(name string) bool {
		again := dumpcopy.IsUnfinished(name) &&
			slices.ContainsFunc(done, func(other string) bool { return strings.HasPrefix(other, dumpcopy.FinishedName(name)) })
		if again {
			d.skip(name, errSuperseded)
		}
		return again
	})
}

// logOf returns the log that belongs to a dump. only means that the directory has no other dump. Debian's names have the same stamp.
func (d *directory) logOf(images []string, only bool) (log string) {
	for _, name := range d.logs {
		_, stamp, _ := strings.Cut(name, ".")
		mine := slices.ContainsFunc(images, func(image string) bool {
			_, s, _ := strings.Cut(image, ".")
			return s != "" && s == stamp && !strings.HasPrefix(name, "vmcore")
		})
		if mine {
			return name
		}
		if only && (log == "" || dumpcopy.IsUnfinished(log)) {
			log = name
		}
	}
	return log
}

// hasLogOfCrash reports whether a directory without a dump is one that kdump made. A log by the name dmesg alone does not say so:
// /var/log has one, too.
func (d *directory) hasLogOfCrash() bool {
	if slices.Contains(d.others, kexecLog) || slices.ContainsFunc(d.logs, func(name string) bool { return strings.HasPrefix(name, "vmcore-") }) {
		return true
	}
	_, stamped := ofDirectory(d.path)
	return stamped && len(d.logs) > 0
}

// kexecLog is the log of the capture kernel.
const kexecLog = "kexec-dmesg.log"

// besides returns the files to keep beside the dump with a log: other logs first, because a dump keeps a few files only.
func (d *directory) besides(log string) []string {
	list := slices.DeleteFunc(slices.Clone(d.logs), func(name string) bool { return name == log })
	if slices.Contains(d.others, kexecLog) {
		list = append(list, kexecLog)
	}
	return append(list, slices.DeleteFunc(slices.Clone(d.others), func(name string) bool { return name == kexecLog })...)
}
