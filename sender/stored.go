package sender

import (
	"context"
	"errors"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// openImage opens the dump file at path, or the image of the stored dump that path names. The image compares pages with
// the journal. A damaged page is left out like any page that cannot be read.
func openImage(path string) (vmcore.Image, error) {
	dir, _, ok := dumpdir.AtPath(path)
	if !ok {
		return dumpfile.Open(path)
	}
	d, err := dumpdir.Open(dumpdir.OS{}, dir)
	if err != nil {
		return nil, err
	}
	img, err := d.OpenImage(context.Background())
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	for _, f := range img.Unchecked() {
		img.Info().Warnf("%s: %s", f.File, f.Text)
	}
	return &storedImage{img, d}, nil
}

// storedImage is the image of a stored dump. Close closes both.
type storedImage struct {
	*dumpdir.Image
	dump *dumpdir.Dump
}

// Close implements vmcore.Image.
func (s *storedImage) Close() error { return errors.Join(s.Image.Close(), s.dump.Close()) }
