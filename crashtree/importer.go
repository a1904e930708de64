package crashtree

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Transport is the transport of imported dumps.
const Transport = "file"

// Importer makes dumps of a store of what Walk finds.
type Importer struct {
	Store storage.Store   // nil, in a dry run, for a store that does not exist
	Room  *admission.Room // of Store
	Host  string          // of all dumps; empty: as they say
	Tool  string          // name and version of the program
	Codec kdumpfile.Codec // of pages that the files have uncompressed
	Dry   bool            // only look
	// Grace, if set, is how long the files of a dump that lacks pages must not have changed: its writer may come back.
	Grace time.Duration
	// Taken, if set, reports whether a dump that the store does not have counts as imported before, because somebody removed it since.
	Taken func(storage.Ref) bool
	// Scratch is the directory for the contents of compressed files, on the disk of Store. If it is empty, or cannot have files without a
	// name, they go where temporary files go.
	Scratch string
	MaxDict int64 // bounds the memory of a decompressor, in bytes; 0 means the constant
	// Progress, if set, is told how much of a dump was read.
	Progress func(path string, done, total uint64)
}

// Results of an import.
const (
	Imported = "imported"
	Would    = "would-import" // in a dry run
	Present  = "present"      // imported before
	Later    = "later"        // its files are still being written
	Failed   = "failed"
)

// Outcome is what became of one dump.
type Outcome struct {
	Path   string `json:"path"`
	Result string `json:"result"`
	storage.Ref
	HostFrom  string        `json:"host_from,omitempty"` // what says the host: option, nodename, directory or dump
	State     dumpdir.State `json:"state,omitempty"`     // of the dump, in a dry run that it would have if all pages decode
	Reason    string        `json:"reason,omitempty"`    // why it is not complete
	CrashTime time.Time     `json:"crash_time,omitzero"`
	Bytes     uint64        `json:"bytes"`              // of the stored vmcore and log; in a dry run, of the files
	NotKept   []string      `json:"not_kept,omitempty"` // files beside the dump that are not kept, and why
	Compared  string        `json:"compared,omitempty"` // name of the file with checksums that was compared with the dump's files
	Matched   []string      `json:"matched,omitempty"`  // which checksums are those of the dump's files
	Warnings  []string      `json:"warnings,omitempty"`
	Error     string        `json:"error,omitempty"`
	Err       error         `json:"-"` // Error, with hints
}

// Import imports one dump. What goes wrong with this dump is in the outcome. The error is that of ctx.
func (im *Importer) Import(ctx context.Context, f Found) (Outcome, error) {
	out := Outcome{Path: f.Path()}
	return out.ended(ctx, im.run(ctx, f, &out))
}

// ended returns the outcome with the error of its import. Its own error is that of ctx.
func (out *Outcome) ended(ctx context.Context, err error) (Outcome, error) {
	if ctx.Err() != nil {
		return *out, context.Cause(ctx)
	}
	switch {
	case errors.Is(err, errWritten):
		out.Result = Later
	case err != nil:
		out.Result = Failed
	}
	if err != nil {
		out.Err, out.Error = err, err.Error()
	}
	return *out, nil
}

// present says that the store has the dump.
func (out *Outcome) present(e *storage.Entry) {
	out.Result, out.Bytes, out.State, out.Reason = Present, e.Bytes(), e.State(), e.Manifest.Reason
	if e.Manifest.CrashTime != nil {
		out.CrashTime = *e.Manifest.CrashTime
	}
}

func (im *Importer) run(ctx context.Context, f Found, out *Outcome) (err error) {
	o, err := im.open(ctx, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	p := &pending{Importer: im, o: o, out: out}
	if err := p.look(ctx); err != nil {
		return err
	}
	if err := p.nameHost(); err != nil {
		return err
	}
	if done, err := p.present(ctx); err != nil || done {
		return err
	}
	id := p.out.ID
	if err := p.compareSums(ctx); err != nil {
		return err
	}
	if p.out.ID != id {
		if done, err := p.present(ctx); err != nil || done {
			return err
		}
	}
	if err := p.checkGrace(); err != nil {
		return err
	}
	if err := p.room(ctx); err != nil {
		return err
	}
	if im.Dry {
		p.foretell()
		return o.checkSame()
	}
	return p.store(ctx)
}

// checkGrace returns an error that matches errWritten if the dump lacks pages and its files changed within the grace.
func (p *pending) checkGrace() error {
	if p.Grace == 0 || p.src != nil && p.src.Lack() == "" {
		return nil
	}
	return p.o.checkUnchangedFor(p.Grace)
}

// pending is a dump that is being imported.
type pending struct {
	*Importer
	o     *opened
	out   *Outcome
	src   *dumpcopy.Source // nil: the dump has its log only
	cause error            // why the images cannot be read; nil if they can, or there are none
	facts machine.Facts
	fresh bool // nothing but this import, or one that was interrupted, made the stored dump
}

// look opens the memory, and finds the id of the dump.
func (p *pending) look(ctx context.Context) (err error) {
	if len(p.o.files) > 0 {
		p.src, err = p.o.source(ctx, p.Codec)
		switch {
		case err != nil && (!dumpcopy.OfDump(err) || p.o.log == nil):
			return err
		case err != nil:
			p.src, p.cause = nil, err
		default:
			_ = p.src.Understand() // then the dump says less
			p.facts = p.src.Machine()
			p.out.ID, err = p.src.ID()
			return err
		}
	}
	// kdump writes the log before the memory, which may be still to come.
	if err := p.o.checkUnchangedFor(quiet); err != nil && !p.o.Alone {
		return err
	}
	p.out.ID, err = p.logID()
	return err
}

// logID is the id of a dump without pages: of its log, or of the log of the capture kernel.
func (p *pending) logID() (string, error) {
	log := p.o.log
	if log == nil {
		var err error
		if log, err = open(p.o.place(), kexecLog); err != nil {
			return "", err
		}
		defer func() { _ = log.Close() }() // only read
		if err := log.checkQuiet(); err != nil {
			return "", err
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(log, 0, log.was.Size())); err != nil {
		return "", err
	}
	p.facts.CrashTime = time.Time{}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// present reports whether nothing of the dump is left to import.
func (p *pending) present(ctx context.Context) (bool, error) {
	was, err := p.find(ctx, p.out.Ref)
	switch {
	case err != nil:
		return false, err
	case was != nil:
		return p.isDone(ctx, was)
	case p.Taken != nil && p.Taken(p.out.Ref):
		p.out.Result = Present
		return true, nil
	}
	return false, nil
}

// find returns the dump of that name if the store has it, at least in part.
func (im *Importer) find(ctx context.Context, ref storage.Ref) (*storage.Entry, error) {
	if im.Store == nil {
		return nil, nil
	}
	e, err := im.Store.Find(ctx, ref.String())
	if errors.Is(err, storage.ErrNotFound) || err == nil && e.Ref != ref {
		return nil, nil
	}
	return &e, err
}

// isDone reports whether nothing of the dump is left to import, and says so in the outcome. An import that was killed left a dump that is
// arriving, or that a receiver sealed since. A dump whose file was unfinished, and is finished now, only needs its seal.
func (p *pending) isDone(ctx context.Context, e *storage.Entry) (bool, error) {
	m := &e.Manifest
	if m.State == dumpdir.StateArriving || m.State != dumpdir.StateComplete && m.Reason == dumpdir.ReasonGone {
		p.fresh = m.State == dumpdir.StateArriving
		return false, nil
	}
	if whole := p.src != nil && p.src.Lack() == ""; whole && m.State == dumpdir.StatePartial && m.Pages.Missing == 0 {
		if same, err := p.isSame(ctx, e.Ref); err != nil || same {
			return false, err
		}
	}
	p.out.present(e)
	return true, nil
}

// isSame reports whether a stored dump has the pages of the file. The end of a file that was not finished may have been other bytes.
func (p *pending) isSame(ctx context.Context, ref storage.Ref) (bool, error) {
	d, err := p.Store.Open(ctx, ref)
	if err != nil {
		return false, err
	}
	defer func() { _ = d.Close() }() // only read
	img, err := d.OpenImage(ctx)
	if err != nil {
		return false, err
	}
	same, err := p.src.Same(ctx, img)
	return same, errors.Join(err, img.Close())
}

// foretell says what an import would do.
func (p *pending) foretell() {
	p.out.Result, p.out.CrashTime = Would, p.facts.CrashTime
	for _, f := range p.o.images {
		p.out.Bytes += uint64(f.was.Size())
	}
	switch {
	case p.src == nil:
		p.out.State, p.out.Reason = dumpdir.StateLogOnly, p.noPages()
	case p.src.Lack() != "":
		p.out.State, p.out.Reason = dumpdir.StatePartial, p.src.Lack()
	default:
		p.out.State = dumpdir.StateComplete
	}
}

// noPages says why a dump has its log only.
func (p *pending) noPages() string {
	if p.cause != nil {
		return "the dump cannot be read: " + p.cause.Error()
	}
	if p.o.Alone {
		return "only the log was named"
	}
	return "there is no vmcore beside the log"
}
