package export

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/vmcore/flattened"
)

// flattenBytes is the payload of a flattened record, the same as in makedumpfile.
const flattenBytes = 64 << 10

// Flatten writes the file at path, which is that of src or made from it, to w as a flattened stream.
func Flatten(ctx context.Context, w io.Writer, src Source, path string) error {
	in, err := plainfile.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	st, err := in.Stat()
	if err != nil {
		return err
	}
	src.meter.begin(StepCopy, st.Size())
	buffered := bufio.NewWriterSize(w, 1<<20)
	out, err := flattened.NewWriter(buffered)
	if err != nil {
		return err
	}
	buf := make([]byte, flattenBytes)
	for off := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(in, buf)
		if _, werr := out.WriteAt(buf[:n], off); werr != nil {
			return werr
		}
		off += int64(n)
		src.meter.add(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(out.Close(), buffered.Flush())
}
