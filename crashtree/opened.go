package crashtree

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/packed"
)

// errWritten says that a file is still being written, or may be.
var errWritten = errors.New("left for later")

// file is an open file of a dump.
type file struct {
	*os.File
	was fs.FileInfo
}

// open opens a file of a dump. The error matches errWritten if somebody may be writing it.
func open(in place, name string) (*file, error) {
	f, err := in.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it was renamed or removed meanwhile: %w", errWritten, err)
	}
	if err != nil {
		return nil, err
	}
	o := &file{File: f}
	if o.was, err = f.Stat(); err == nil {
		err = o.checkWriter()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return o, nil
}

// quiet is how long a file must not have changed if the kernel cannot say whether somebody writes it, or kdump has not finished it. kdump
// writes all the time; a stalled NFS mount can stop it for minutes.
const quiet = 5 * time.Minute

// checkWriter asks the kernel for a read lease, which it gives only for a file that nobody has open for writing (fcntl(2)). It is not given
// to others than the owner, by some file systems, and for writers on other machines. A file that is open is not always written:
// NFS-Ganesha keeps the files of its clients open until it needs the descriptors. Then the time of the last change decides.
func (f *file) checkWriter() error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return err
	}
	return f.checkQuiet()
}

// checkQuiet returns an error that matches errWritten if the file changed a short time ago, or, by a wrong clock, will.
func (f *file) checkQuiet() error { return f.checkUnchangedFor(quiet) }

// checkUnchangedFor is checkQuiet with another time.
func (f *file) checkUnchangedFor(d time.Duration) error {
	if age := time.Since(f.was.ModTime()); age.Abs() < d {
		return fmt.Errorf("%w: it changed %v ago, and may still be written; import it again in %v", errWritten, age.Abs().Round(time.Second), d)
	}
	return nil
}

// checkSame returns an error that matches errWritten if the file has changed since it was opened.
func (f *file) checkSame() error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if now.Size() != f.was.Size() || !now.ModTime().Equal(f.was.ModTime()) {
		return fmt.Errorf("%w: %s changed while it was read", errWritten, f.Name())
	}
	return nil
}

// opened is a dump of a tree whose files are open.
type opened struct {
	Found
	images  []*file
	files   []dumpcopy.File // of images
	cause   error           // why one of them cannot be read; nil if all can be opened
	log     *file           // nil if there is none
	scratch []*os.File      // contents of compressed images
}

// open opens the files of a dump. Errors that match errWritten say that the dump is not there yet.
func (im *Importer) open(ctx context.Context, f Found) (o *opened, err error) {
	o = &opened{Found: f}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if f.Log != "" {
		if o.log, err = open(f.place(), f.Log); err != nil {
			return o, err
		}
	}
	promised := f.unfinished()
	for _, name := range f.Images {
		image, err := open(f.place(), name)
		if err != nil {
			return o, err
		}
		o.images = append(o.images, image)
		why := promised
		if dumpcopy.IsUnfinished(name) {
			why = "its name says that kdump did not finish it"
		}
		if why != "" {
			if err := image.checkQuiet(); err != nil {
				return o, err
			}
		}
		of, err := im.contents(ctx, o, image, why)
		switch {
		case err != nil && dumpcopy.OfDump(err):
			o.cause = err
		case err != nil:
			return o, err
		}
		o.files = append(o.files, of)
	}
	return o, nil
}

func (o *opened) close() error {
	var errs []error
	for _, f := range append(o.images, o.log) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	for _, f := range o.scratch {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// checkUnchangedFor returns an error that matches errWritten if a file of the dump changed a short time ago.
func (o *opened) checkUnchangedFor(d time.Duration) error {
	for _, f := range append(o.images, o.log) {
		if f == nil {
			continue
		}
		if err := f.checkUnchangedFor(d); err != nil {
			return err
		}
	}
	return nil
}

// checkSame returns an error that matches errWritten if a file of the dump has changed.
func (o *opened) checkSame() error {
	for _, f := range append(o.images, o.log) {
		if f == nil {
			continue
		}
		if err := f.checkSame(); err != nil {
			return err
		}
	}
	return nil
}

// contents is the dump in an image. unfinished says why kdump did not finish it.
func (im *Importer) contents(ctx context.Context, o *opened, image *file, unfinished string) (dumpcopy.File, error) {
	switch form, err := formOf(image); {
	case err != nil:
		return dumpcopy.File{}, err
	case form != packed.Plain:
		return im.unpacked(ctx, o, image, form, unfinished)
	}
	return image.dump(ctx, unfinished)
}

// dump is the dump in a file. unfinished says why kdump did not finish it.
func (f *file) dump(ctx context.Context, unfinished string) (dumpcopy.File, error) {
	size := f.was.Size()
	of := dumpcopy.File{
		ReaderAt: medium{dumpfile.Holey{File: f.File}, ctx, isLocal(f.File)}, Size: size, Came: size,
		Whole: unfinished == "", Broken: unfinished, Marked: unfinished != "",
	}
	head := make([]byte, len(flattened.Signature))
	if n, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) || string(head[:n]) != flattened.Signature {
		return of, ignoreEOF(err)
	}
	flat, err := flattened.New(of.ReaderAt, size)
	if err != nil {
		return of, err
	}
	of.ReaderAt, of.Size, of.Flat, of.Wrap = flat, flat.Size(), true, []string{vmcore.FormatFlattened}
	// The end marker proves that the stream is whole.
	if of.Whole, of.Broken = true, ""; flat.Damaged() != nil {
		of.Whole, of.Broken = false, flat.Damaged().Error()
	}
	return of, nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// readme is the file in which SUSE's kdump says how far it came.
const readme = "README.txt"

// unfinished returns why kdump did not finish the files of the directory, as far as SUSE's says so. It writes the file first with a warning, and
// again when all is done (dracut/kdump-save).
func (f *Found) unfinished() string {
	text, err := f.place().head(readme, 64<<10)
	if err != nil || !strings.Contains(text, "crash dump is likely incomplete") || strings.Contains(text, "saved successfully") {
		return ""
	}
	return readme + " says that kdump did not finish it"
}

// source opens the memory of the dump. Errors that dumpcopy.OfDump accepts are about the contents of its files.
func (o *opened) source(ctx context.Context, codec kdumpfile.Codec) (*dumpcopy.Source, error) {
	if o.cause != nil {
		return nil, o.cause
	}
	if len(o.files) == 1 && pieceOf(&o.files[0]) == nil {
		if err := checkForm(&o.files[0]); err != nil {
			return nil, err
		}
		return dumpcopy.Open(ctx, o.files[0], codec)
	}
	return dumpcopy.OpenSet(ctx, o.files, codec)
}

// checkForm returns an error unless the file begins like a dump.
func checkForm(f *dumpcopy.File) error {
	if f.Size == 0 {
		return fmt.Errorf("%w: it is empty", vmcore.ErrTruncated)
	}
	head := make([]byte, len(kdumpfile.Signature))
	n, err := f.ReadAt(head, 0)
	for _, magic := range []string{kdumpfile.Signature, elf.ELFMAG} {
		if strings.HasPrefix(string(head[:n]), magic) {
			return nil
		}
	}
	return cmp.Or(ignoreEOF(err), vmcore.ErrUnknownFormat)
}

// pieceOf opens a piece of a --split set, nil for any other file.
func pieceOf(f *dumpcopy.File) *kdumpfile.Reader {
	k, err := kdumpfile.New(f.ReaderAt, f.Size)
	if err != nil {
		return nil
	}
	if _, split := k.Split(); !split {
		return nil
	}
	return k
}

// groups groups images into dumps: the pieces of a --split set are one. A second copy of a piece begins another set.
func (d *directory) groups(images []string) (groups [][]string) {
	var sets [][]*kdumpfile.Reader // of groups; empty for other files
	for _, name := range images {
		k := d.piece(name)
		at := slices.IndexFunc(sets, func(set []*kdumpfile.Reader) bool { return k != nil && k.Joins(set) })
		if at < 0 {
			at, groups, sets = len(groups), append(groups, nil), append(sets, nil)
		}
		groups[at] = append(groups[at], name)
		if k != nil {
			sets[at] = append(sets[at], k)
		}
	}
	return groups
}

// piece reads the headers of an image if it is a piece of a --split set. The result is only good to be compared. makedumpfile does not
// flatten pieces.
func (d *directory) piece(name string) *kdumpfile.Reader {
	f, err := d.open(name)
	if err != nil {
		return nil // whoever reads it says why it cannot be read
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	return pieceOf(&dumpcopy.File{ReaderAt: dumpfile.Holey{File: f}, Size: st.Size()})
}
