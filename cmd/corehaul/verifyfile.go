package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/corehaul/corehaul/dumpdir"
)

// verifyFile verifies a file outside of dump directories: it decodes the pages, and compares the file with the
// SHA256SUMS beside it, if that has a line for it.
func verifyFile(ctx context.Context, path string, opts dumpdir.VerifyOptions) (*dumpdir.Report, error) {
	rep, err := dumpdir.VerifyFile(ctx, path, opts)
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) || ctx.Err() != nil {
		return nil, err
	}
	if err != nil {
		rep, err = nil, fmt.Errorf("%s: %w", path, err)
	}
	beside, sumErr := dumpdir.SumBeside(ctx, path)
	if sumErr != nil {
		return nil, sumErr
	}
	return beside.AddTo(rep, path, err)
}

// verdict says what a verification that found no damage has checked, and no more.
func verdict(r *dumpdir.Report) string {
	switch r.Compared {
	case dumpdir.ComparedNothing:
		return "all pages that are here decode; there was nothing to compare them with (no journal, no line in a SHA256SUMS)"
	case dumpdir.ComparedSums:
		return "no damage found: the file has its SHA-256 in " + dumpdir.SumsName + ", and all pages that are here decode"
	}
	return "no damage found"
}
