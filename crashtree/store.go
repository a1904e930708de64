package crashtree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
)

// maxBeside bounds a file beside the dump, as that of a stock client.
const maxBeside = 256 << 20

// room returns an error if the dump cannot fit. It compares the least that the dump can need, so the copy may still find too little.
func (p *pending) room(ctx context.Context) error {
	if p.Store == nil {
		return nil
	}
	return p.Room.CheckFits(ctx, p.out.Host, p.least())
}

// least is a low estimate of the bytes of the stored dump.
func (p *pending) least() (bytes uint64) {
	if p.o.log != nil {
		bytes += uint64(p.o.log.was.Size())
	}
	if p.src == nil {
		return bytes
	}
	held, pageSize := p.src.Held()
	if !p.src.PagesAreCopied() {
		return bytes + admission.Demand{Planned: held, Solid: held, PageSize: pageSize}.Least(dumpdir.Progress{})
	}
	for _, f := range p.o.images {
		bytes += uint64(f.was.Size()) / 2 // a file may have been flattened, sparse, or padded
	}
	return bytes
}

// store makes the dump, or goes on with an earlier import of it. If that is not possible for want of space, or because a file changed, it removes
// what was made of it, but not a dump that was sealed before.
func (p *pending) store(ctx context.Context) error {
	account := p.Room.Account(p.out.Host)
	w, err := p.writer(ctx, account)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(p.out.Path)
	if err != nil {
		return errors.Join(err, w.Close())
	}
	c := &dumpcopy.Copy{
		W: w, Codec: p.Codec, Charge: account.Charge, Ready: p.o.checkSame,
		Keep: func(context.Context) (string, error) {
			return "", &dumpcopy.NotKeptError{Reason: "it stays where it is, " + path}
		},
	}
	if p.Progress != nil {
		c.Progress = func(done, total uint64) { p.Progress(p.out.Path, done, total) }
	}
	res, err := p.fill(ctx, c)
	err = errors.Join(err, w.Close())
	if p.fresh && (errors.Is(err, errWritten) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
		return errors.Join(err, p.Store.Remove(ctx, p.out.Ref, storage.RemoveOptions{Force: true}))
	}
	if err != nil {
		return err
	}
	p.out.Result, p.out.State, p.out.Reason, p.out.CrashTime = Imported, res.State, res.Reason, p.facts.CrashTime
	p.out.Bytes = p.storedBytes(ctx)
	return nil
}

// storedBytes is what the dump uses of the store.
func (p *pending) storedBytes(ctx context.Context) uint64 {
	e, err := p.Store.Find(ctx, p.out.String())
	if err != nil {
		return 0 // removed meanwhile
	}
	return e.Bytes()
}

// writer opens the dump, or makes it.
func (p *pending) writer(ctx context.Context, account *admission.Account) (*dumpdir.Writer, error) {
	w, err := p.Store.Resume(ctx, p.out.Ref, storage.ResumeOptions{Reopen: true})
	switch {
	case errors.Is(err, storage.ErrBusy):
		return nil, fmt.Errorf("%w: another process is writing this dump to the store", errWritten)
	case !errors.Is(err, storage.ErrNotFound):
		return w, err
	}
	made, err := account.ChargeDump(ctx)
	if err != nil {
		return nil, err
	}
	defer made()
	path, err := filepath.Abs(p.out.Path)
	if err != nil {
		return nil, err
	}
	p.fresh = true
	return p.Store.Create(ctx, dumpdir.Meta{
		ID: p.out.ID, Host: p.out.Host, CrashTime: p.facts.CrashTime, StartTime: p.start(), Transport: Transport, Peer: path,
		Sender: "kdump", Receiver: p.Tool,
	})
}

// start is the time of arrival of a dump. A dump without a time of its crash is listed by this, so it gets the time when kdump wrote its files.
func (p *pending) start() time.Time {
	for _, f := range append([]*file{p.o.log}, p.o.images...) {
		if f != nil && p.facts.CrashTime.IsZero() {
			return f.was.ModTime()
		}
	}
	return time.Now()
}

// fill copies everything and seals the dump. The log comes first, and files beside the dump before the seal, so that a sealed dump has all.
func (p *pending) fill(ctx context.Context, c *dumpcopy.Copy) (dumpdir.Result, error) {
	if err := p.storeLog(ctx, c); err != nil {
		return dumpdir.Result{}, err
	}
	if err := p.keepOthers(ctx, c); err != nil {
		return dumpdir.Result{}, err
	}
	switch {
	case p.src != nil:
		return c.Run(ctx, p.src)
	case p.cause != nil:
		return c.Unreadable(ctx, dumpcopy.File{Whole: true}, p.cause)
	}
	if err := p.o.checkSame(); err != nil {
		return dumpdir.Result{}, err
	}
	return c.W.Seal(ctx, p.noPages())
}

// storeLog stores the log beside the dump, unless the dump has one.
func (p *pending) storeLog(ctx context.Context, c *dumpcopy.Copy) error {
	if p.o.log == nil || c.W.Manifest().Bytes.Log > 0 {
		return nil
	}
	size := p.o.log.was.Size()
	if err := c.Charge(ctx, uint64(size)); err != nil {
		return err
	}
	line, err := dumpcopy.StoreLog(ctx, c.W, func(out io.Writer) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := io.Copy(out, io.NewSectionReader(p.o.log, 0, size))
		return err
	})
	if err != nil {
		return err
	}
	return c.W.UpdateMeta(func(m *dumpdir.Meta) { m.PanicLine = line })
}

// keepOthers keeps the files beside the dump. One that cannot be kept costs nothing but itself.
func (p *pending) keepOthers(ctx context.Context, c *dumpcopy.Copy) error {
	names := p.o.Others
	if more := len(names) - dumpdir.MaxKept; more > 0 {
		names = names[:dumpdir.MaxKept]
		p.out.NotKept = append(p.out.NotKept, fmt.Sprintf("%d more files: a dump keeps %d", more, dumpdir.MaxKept))
	}
	for _, name := range names {
		err := p.keep(ctx, c, name)
		notKept, isNotKept := errors.AsType[*dumpcopy.NotKeptError](err)
		switch {
		case isNotKept:
			p.out.NotKept = append(p.out.NotKept, fmt.Sprintf("%s: %s", name, notKept.Reason))
		case err != nil:
			return err
		}
	}
	return nil
}

func (p *pending) keep(ctx context.Context, c *dumpcopy.Copy, name string) error {
	f, err := open(p.o.place(), name)
	if errors.Is(err, errWritten) {
		return err
	}
	if err != nil {
		return &dumpcopy.NotKeptError{Reason: err.Error()}
	}
	defer func() { _ = f.Close() }() // only read
	size := f.was.Size()
	if size > maxBeside {
		return &dumpcopy.NotKeptError{Reason: fmt.Sprintf("it has more than %d MiB", maxBeside>>20)}
	}
	if err := c.Charge(ctx, uint64(size)); err != nil {
		return err
	}
	err = c.W.Keep(dumpcopy.KeptName(name), io.NewSectionReader(f, 0, size))
	if errors.Is(err, dumpdir.ErrBadKeptName) {
		return &dumpcopy.NotKeptError{Reason: err.Error()}
	}
	return err
}
