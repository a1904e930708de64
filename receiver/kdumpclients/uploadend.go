package kdumpclients

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/corehaul/corehaul/vmcore/elfcore"
)

// revoke ends the upload, because its file has a new upload or no name. It does not wait for a write in progress.
func (u *upload) revoke() { go u.Abort(errRevoked) }

// Close implements Upload.
func (u *upload) Close() error { return u.end(nil) }

// Abort implements Upload.
func (u *upload) Abort(err error) {
	if err == nil {
		err = errGone
	}
	u.cancel(err)
	_ = u.end(err) // the caller knows the error
}

// end makes the bytes durable. cause is why no more bytes come, nil if the client ended the file.
func (u *upload) end(cause error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.done {
		return nil
	}
	u.done = true
	defer u.cancel(fs.ErrClosed)
	broken, err := u.err, u.finish()
	if err == nil {
		err = u.setLength(cause == nil)
	}
	img := u.theImage()
	switch marked := img != nil && img.state.Marked; {
	case broken != nil:
	case err != nil && cause != nil:
		broken = fmt.Errorf("%w: %w", cause, err)
	case err != nil:
		broken = err
	case !marked: // an end marker proves completeness by itself
		broken = cause
	}
	err = u.closeFiles(img)
	if broken == nil {
		broken = err
	}
	u.err = broken
	return errors.Join(broken, u.h.ended(u, img, broken))
}

// finish ends the stream, and returns why it is incomplete.
func (u *upload) finish() error {
	if !u.decided && u.have.From(0) > 0 && u.err == nil {
		if err := u.decide(true); err != nil {
			return err
		}
		if err := u.feed(); err != nil {
			return err
		}
	}
	if u.sink == nil {
		return u.strangeness()
	}
	err, img := u.sink.finish(), u.sink.image()
	if img == nil {
		u.keepAsSent()
		return u.strangeness()
	}
	if err == nil && u.have.End() > u.pos && !img.state.Marked {
		err = fmt.Errorf("byte %d of the stream did not arrive", u.pos)
	}
	return err
}

// setLength sets the length that the client gave, if the client ended the file. An interrupted file keeps only the bytes that
// came.
func (u *upload) setLength(whole bool) error {
	end := u.have.End()
	switch {
	case u.sink != nil || u.size <= end || u.log != nil && u.size > u.log.most:
		return nil
	case whole:
		return u.raw.Truncate(u.size)
	}
	u.size = end
	u.updateState()
	return nil
}

// theImage returns the dump in the file, nil if there is none.
func (u *upload) theImage() *image {
	if u.sink != nil {
		return u.sink.image()
	}
	if u.img != nil && u.form == formELF && elfcore.IsProcess(u.raw, u.size) {
		return nil
	}
	return u.img
}

// closeFiles makes the bytes durable and closes the files.
func (u *upload) closeFiles(img *image) error {
	switch {
	case img == nil:
		return errors.Join(u.unroll(), u.raw.Sync(), u.raw.Close())
	case img.state.InPlace:
		return errors.Join(img.sync(), u.raw.Close())
	}
	// The file in the client's form is not needed any more.
	return errors.Join(img.sync(), img.f.Close(), u.raw.Truncate(0), u.raw.Close())
}

// ended notes the result of an upload.
func (h *host) ended(u *upload, img *image, broken error) error {
	err := h.change(func(*hostState) error {
		if h.uploads[u.f.Num] != u {
			h.remove(u.f.Num)
			return nil
		}
		delete(h.uploads, u.f.Num)
		u.f.Status, u.dir.Used = fileWhole, time.Now().UTC()
		if broken != nil {
			u.f.Status, u.f.Reason = fileBroken, broken.Error()
		}
		if img != nil {
			u.f.Image = &img.state
		}
		return nil
	})
	h.unstage() // bytes that were put aside, or have no file
	h.svc.wake()
	return err
}
