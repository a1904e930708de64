package kdumpclients

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/flattened"
)

// staged is the file of a dump. It knows which bytes have come: see vmcore.Sparse.
type staged struct {
	io.ReaderAt
	*flattened.Coverage
}

var _ vmcore.Sparse = (*staged)(nil)

// openImage opens the dump in file f.
func (h *host) openImage(f *fileState) (*os.File, dumpcopy.File, error) {
	file, err := plainfile.Open(h.path(f.Num, f.Image.kind()))
	if err != nil {
		return nil, dumpcopy.File{}, err
	}
	st, err := file.Stat()
	if err != nil {
		return nil, dumpcopy.File{}, errors.Join(err, file.Close())
	}
	came := new(flattened.Coverage)
	if m := h.loadMap(f.Num); m != nil {
		came = m.Coverage
	}
	of := dumpcopy.File{
		ReaderAt: &staged{ReaderAt: file, Coverage: came}, Size: st.Size(), Came: came.Bytes(), Whole: f.Status == fileWhole, Broken: f.Reason,
		Flat: slices.Contains(f.Image.Wrap, formFlat), Packed: slices.ContainsFunc(f.Image.Wrap, form.compressed),
	}
	for _, w := range f.Image.Wrap {
		of.Wrap = append(of.Wrap, string(w))
	}
	return file, of, nil
}

// kind is the kind of the file with the dump: see host.path.
func (i *imageState) kind() string {
	if i.InPlace {
		return "file"
	}
	return "image"
}

// maxGaps is how much of a file may be holes if it is to be copied. In the copy, holes take space.
const maxGaps = 16 << 20

// roomToKeep returns why a copy of a file cannot be kept.
func (j *job) roomToKeep(ctx context.Context, file *os.File) error {
	st, err := file.Stat()
	if err != nil {
		return err
	}
	if plainfile.Holes(st) > maxGaps {
		return &dumpcopy.NotKeptError{Reason: "it consists of holes"}
	}
	size := uint64(st.Size()) //nolint:gosec // not negative
	return j.h.account.ChargeCopy(ctx, size, size)
}

// keepImage keeps the file of a dump.
func (j *job) keepImage(ctx context.Context, f *fileState, w *dumpdir.Writer) (name string, err error) {
	file, err := plainfile.Open(j.h.path(f.Num, f.Image.kind()))
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // only read
	if err := j.roomToKeep(ctx, file); err != nil {
		return "", err
	}
	name = "vmcore"
	j.h.mu.Lock()
	for n, g := range j.dir.Files {
		if g.Num == f.Num {
			name = dumpcopy.KeptName(n)
		}
	}
	j.h.mu.Unlock()
	return name, w.Keep(name, file)
}
