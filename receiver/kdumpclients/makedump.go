package kdumpclients

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/storage"
)

// workSafely is work that returns a panic as an error. A bug in a reader of hostile dumps would otherwise end the receiver,
// and again after each restart.
func (j *job) workSafely(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v\n%s", p, debug.Stack())
		}
	}()
	return j.work(ctx)
}

// work does all work of a job: the log first, then the pages, then the rest. After a kill, interrupted work is done again.
func (j *job) work(ctx context.Context) error {
	if err := j.begin(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{j.storeLog, j.importImage, j.sealRest, j.keepFiles} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	j.h.mu.Lock()
	ended := j.clientEnded()
	j.h.mu.Unlock()
	if ended {
		return j.finish()
	}
	return nil
}

// begin makes sure that there is a dump for the files: a new one if the last one is sealed and another dump came in the same
// directory.
func (j *job) begin() error {
	err := j.h.change(func(*hostState) error {
		d := j.dir
		_, next := j.nextImage()
		if d.Dump != nil && (next == nil || d.Dump.Image != nil) {
			return errNothing
		}
		if d.Dump != nil && d.Dump.Sealed && next != nil {
			d.Dump = nil
			d.Dumps++
		}
		if d.Dump == nil {
			d.Dump = &dumpState{ID: j.dumpID()}
		}
		d.Dump.Image = next
		return nil
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// errNothing means that there is no change to save.
var errNothing = errors.New("nothing changed")

func (j *job) ref() storage.Ref { return storage.Ref{Host: j.h.name, ID: j.dir.Dump.ID} }

// peer returns the client's last address.
func (j *job) peer() string {
	j.h.mu.Lock()
	defer j.h.mu.Unlock()
	return j.dir.Peer
}

// writer opens the dump, or makes it.
func (j *job) writer(ctx context.Context) (*dumpdir.Writer, error) {
	w, err := j.svc.cfg.Store.Resume(ctx, j.ref(), storage.ResumeOptions{Takeover: true})
	if errors.Is(err, storage.ErrNotFound) {
		made, err := j.h.account.ChargeDump(ctx)
		if err != nil {
			return nil, err
		}
		defer made()
		return j.svc.cfg.Store.Create(ctx, dumpdir.Meta{
			ID: j.dir.Dump.ID, Host: j.h.name, StartTime: j.dir.Born, Transport: "ssh", Peer: j.peer(),
			Sender: "kdump", Receiver: j.svc.cfg.Tool,
		})
	}
	if err != nil {
		return nil, err
	}
	if res, ok := w.Result(); !ok || res.State != dumpdir.StateLogOnly || j.dir.Dump.Image == nil {
		return w, nil
	}
	// Another part of the program has sealed it as log-only.
	if err := w.Close(); err != nil {
		return nil, err
	}
	return j.svc.cfg.Store.Resume(ctx, j.ref(), storage.ResumeOptions{Takeover: true, Reopen: true})
}

// with runs fn on the dump.
func (j *job) with(ctx context.Context, fn func(w *dumpdir.Writer) error) (err error) {
	w, err := j.writer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }() // also if fn panics
	return fn(w)
}

// storeLog stores the log that the client sent.
func (j *job) storeLog(ctx context.Context) error {
	j.h.mu.Lock()
	name, f := j.nextLog()
	j.h.mu.Unlock()
	if f == nil {
		return nil
	}
	file, err := plainfile.Open(j.h.path(f.Num, "file"))
	if err != nil {
		return j.gone(f, err)
	}
	defer func() { _ = file.Close() }() // only read
	err = j.with(ctx, func(w *dumpdir.Writer) error {
		if _, sealed := w.Result(); sealed {
			return nil // sealed before the tree could say so
		}
		j.h.account.ChargeLogCopy(uint64(f.Size)) //nolint:gosec // not negative
		var title printk.TitleScanner
		if err := w.StoreLog(io.TeeReader(file, &title)); err != nil {
			return err
		}
		return w.UpdateMeta(func(m *dumpdir.Meta) { m.PanicLine, m.Peer = title.Line(), j.peer() })
	})
	if err != nil {
		return fmt.Errorf("log %s: %w", name, err)
	}
	j.svc.cfg.Log.Info("stored the log that a host sent", "host", j.h.name, "dump", j.dir.Dump.ID, "directory", j.path, "bytes", f.Size)
	return j.h.change(func(*hostState) error {
		j.dir.Dump.Log = f.Num
		return nil
	})
}

// gone handles a file whose bytes are missing. If the client has replaced it meanwhile, the job tries again.
func (j *job) gone(f *fileState, err error) error {
	j.h.mu.Lock()
	defer j.h.mu.Unlock()
	for _, g := range j.dir.Files {
		if g.Num == f.Num {
			return err
		}
	}
	return errAgain
}

// importImage imports the pages of the client's file into the dump.
func (j *job) importImage(ctx context.Context) error {
	f := j.dir.Dump.Image // only this job changes it
	if f == nil || j.dir.Dump.Sealed {
		return nil
	}
	end, ok := j.svc.jobs.beginImport(j.h.name, j.svc.wake)
	if !ok {
		return errLater // to wait here would delay the logs of others
	}
	defer end()
	begin := time.Now()
	var res dumpdir.Result
	err := j.with(ctx, func(w *dumpdir.Writer) (err error) {
		res, err = j.importInto(ctx, f, w)
		return err
	})
	if err != nil {
		return err
	}
	j.svc.cfg.Log.Info("made a dump of what a host sent", "host", j.h.name, "dump", j.dir.Dump.ID, "directory", j.path, "state", res.State,
		"reason", res.Reason, "pages", res.Progress.Present, "missing", res.Progress.Missing(), "bytes", res.Progress.Bytes, "took", time.Since(begin).Round(time.Millisecond))
	if err := j.sealed(f); err != nil {
		return err
	}
	j.h.mu.Lock()
	defer j.h.mu.Unlock()
	j.h.remove(f.Num)
	j.h.recount()
	return nil
}

// sealed notes durably that the dump is sealed.
func (j *job) sealed(f *fileState) error {
	return j.h.change(func(*hostState) error {
		j.dir.Dump.Sealed, j.dir.Dump.Image = true, nil
		if f != nil {
			f.Image.Done = true
		}
		return nil
	})
}

func (j *job) importInto(ctx context.Context, f *fileState, w *dumpdir.Writer) (dumpdir.Result, error) {
	if res, ok := w.Result(); ok {
		return res, nil // sealed before the tree could say so
	}
	file, of, err := j.h.openImage(f)
	if err != nil {
		return dumpdir.Result{}, err
	}
	defer func() { _ = file.Close() }() // only read
	c := &dumpcopy.Copy{
		W: w, Codec: j.svc.cfg.Codec,
		Charge:   func(ctx context.Context, n uint64) error { return j.h.account.ChargeCopy(ctx, n, uint64(of.Came)) }, //nolint:gosec // not negative
		Keep:     func(ctx context.Context) (string, error) { return j.keepImage(ctx, f, w) },
		Describe: func(m *dumpdir.Meta) { m.Peer = j.peer() },
	}
	s, err := dumpcopy.Open(ctx, of, c.Codec)
	if err != nil {
		return c.Unreadable(ctx, of, err)
	}
	if err := s.Understand(); err != nil {
		j.svc.cfg.Log.Debug("the kernel in a dump is not understood", "host", j.h.name, "error", err)
	}
	return c.Run(ctx, s)
}

// sealRest seals a dump that gets no more data.
func (j *job) sealRest(ctx context.Context) error {
	j.h.mu.Lock()
	rest := j.clientEnded() && !j.dir.Dump.Sealed && j.dir.Dump.Image == nil
	_, next := j.nextImage()
	reason := j.noImage()
	j.h.mu.Unlock()
	if next != nil {
		return errAgain
	}
	if !rest {
		return nil
	}
	err := j.with(ctx, func(w *dumpdir.Writer) error {
		_, err := w.Seal(ctx, reason)
		return err
	})
	if err != nil {
		return err
	}
	j.svc.cfg.Log.Warn("a host sent no vmcore", "host", j.h.name, "dump", j.dir.Dump.ID, "directory", j.path, "reason", reason)
	return j.sealed(nil)
}

// keepFiles keeps the other files of the client beside the sealed dump.
func (j *job) keepFiles(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		j.h.mu.Lock()
		name := ""
		if j.dir.Dump.Sealed {
			name = j.nextKept()
		}
		f := j.dir.Files[name]
		j.h.mu.Unlock()
		if f == nil {
			return nil
		}
		if err := j.keepFile(ctx, name, f); err != nil {
			return err
		}
		err := j.h.change(func(*hostState) error {
			f.Kept = true
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// keepFile keeps one file. If the dump refuses it, because of its name or the number of files, keepFile logs that.
func (j *job) keepFile(ctx context.Context, name string, f *fileState) error {
	file, err := plainfile.Open(j.h.path(f.Num, "file"))
	if err != nil {
		return j.gone(f, err)
	}
	defer func() { _ = file.Close() }() // only read
	w, err := j.svc.cfg.Store.Resume(ctx, j.ref(), storage.ResumeOptions{Takeover: true})
	if errors.Is(err, storage.ErrNotFound) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	if err = j.roomToKeep(ctx, file); err == nil {
		err = w.Keep(dumpcopy.KeptName(name), file)
	}
	err = errors.Join(err, w.Close())
	if _, notKept := errors.AsType[*dumpcopy.NotKeptError](err); notKept || errors.Is(err, dumpdir.ErrBadKeptName) {
		j.svc.cfg.Log.Warn("a file is not kept beside its dump", "host", j.h.name, "dump", j.dir.Dump.ID, "file", name, "error", err)
		return nil
	}
	return err
}

// dumpID returns the id of the directory's dump. The path has the client's address and time. Born distinguishes two crashes
// with the same time of the machine's clock.
func (j *job) dumpID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "stock\x00%s\x00%s\x00%d\x00%d", j.h.name, j.path, j.dir.Born.UnixNano(), j.dir.Dumps))
	return hex.EncodeToString(sum[:16])
}

// finish removes finished files from the tree, except for status files.
func (j *job) finish() error {
	return j.h.change(func(s *hostState) error {
		_, image := j.nextImage()
		if s.Dirs[j.path] != j.dir && j.dir.Past == "" || !j.clientEnded() || image != nil || j.nextKept() != "" {
			return errAgain
		}
		for name, f := range j.dir.Files {
			if !dumpcopy.IsStatus(name) {
				delete(j.dir.Files, name)
				j.h.drop(f)
			}
		}
		j.dir.Dump = nil
		j.dir.Dumps++
		if j.dir.Past != "" {
			s.Past = slices.DeleteFunc(s.Past, func(d *dirState) bool { return d == j.dir })
			return nil
		}
		if len(j.dir.Files) == 0 && j.path != "/" && !s.hasDirs(j.path) {
			delete(s.Dirs, j.path)
		}
		return nil
	})
}
