package crashtree

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/hostname"
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
	HostFrom  string        `json:"host_from,omitempty"` // what says the host: option, nodename or directory
	State     dumpdir.State `json:"state,omitempty"`     // of the dump, in a dry run that it would have if all pages decode
	Reason    string        `json:"reason,omitempty"`    // why it is not complete
	CrashTime time.Time     `json:"crash_time,omitzero"`
	Bytes     uint64        `json:"bytes"`              // of the stored vmcore and log; in a dry run, of the files
	NotKept   []string      `json:"not_kept,omitempty"` // files beside the dump that are not kept, and why
	Error     string        `json:"error,omitempty"`
	Err       error         `json:"-"` // Error, with hints
}

// NoHostError says that nothing names the host of a dump.
type NoHostError struct{ Err error }

// Error says why there is no name.
func (e *NoHostError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *NoHostError) Unwrap() error { return e.Err }

// Hints says what to do next.
func (e *NoHostError) Hints() []string {
	return []string{"--host NAME says whose dumps these are; import dumps of several hosts one by one"}
}

// Import imports one dump. What goes wrong with this dump is in the outcome. The error is that of ctx.
func (im *Importer) Import(ctx context.Context, f Found) (Outcome, error) {
	out := Outcome{Path: f.Path()}
	err := im.run(ctx, f, &out)
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
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
	return out, nil
}

func (im *Importer) run(ctx context.Context, f Found, out *Outcome) (err error) {
	o, err := f.open()
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
	was, err := p.find(ctx)
	if err != nil || was != nil && p.isDone(was) {
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

// pending is a dump that is being imported.
type pending struct {
	*Importer
	o     *opened
	out   *Outcome
	src   *dumpcopy.Source // nil: the dump has its log only
	cause error            // why the images cannot be read; nil if they can, or there are none
	facts machine.Facts
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
	p.out.ID, err = p.logID()
	return err
}

// logID is the id of a dump without pages: of its log, or of the log of the capture kernel.
func (p *pending) logID() (string, error) {
	log := p.o.log
	if log == nil {
		var err error
		if log, err = open(filepath.Join(p.o.Dir, kexecLog)); err != nil {
			return "", err
		}
		defer func() { _ = log.Close() }() // only read
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(log, 0, log.was.Size())); err != nil {
		return "", err
	}
	p.facts.CrashTime = time.Time{}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// unnamed is the nodename of a kernel that has got no name (init/version.c, UTS_NODENAME).
const unnamed = "(none)"

// nameHost finds the host of the dump.
func (p *pending) nameHost() error {
	fromDir, _ := ofDirectory(p.o.Dir)
	nodename := p.facts.Utsname.Nodename
	if nodename == unnamed {
		nodename = ""
	}
	switch p.out.Host = cmp.Or(p.Host, nodename, fromDir); {
	case p.out.Host == "":
		return &NoHostError{errors.New("neither the dump nor the name of its directory says which host it is of")}
	case p.Host != "":
		p.out.HostFrom = "option"
	case nodename != "":
		p.out.HostFrom = "nodename"
	default:
		p.out.HostFrom = "directory"
	}
	if err := hostname.Check(p.out.Host); err != nil {
		return &NoHostError{fmt.Errorf("its %s says: %w", p.out.HostFrom, err)}
	}
	return nil
}

// find returns the dump if it was imported before, at least in part.
func (p *pending) find(ctx context.Context) (*storage.Entry, error) {
	if p.Store == nil {
		return nil, nil
	}
	e, err := p.Store.Find(ctx, p.out.String())
	if errors.Is(err, storage.ErrNotFound) || err == nil && e.Ref != p.out.Ref {
		return nil, nil
	}
	return &e, err
}

// isDone reports whether nothing of the dump is left to import, and says so in the outcome. An import that was killed left a dump that is
// arriving, or that a receiver sealed since. A dump whose file was unfinished, and is finished now, only needs its seal.
func (p *pending) isDone(e *storage.Entry) bool {
	m := &e.Manifest
	whole := p.src != nil && p.src.Lack() == ""
	switch {
	case m.State == dumpdir.StateArriving, m.State != dumpdir.StateComplete && m.Reason == dumpdir.ReasonGone,
		m.State == dumpdir.StatePartial && m.Pages.Missing == 0 && whole:
		return false
	}
	p.out.Result, p.out.Bytes = Present, e.Bytes()
	p.out.State, p.out.Reason = e.State(), m.Reason
	if m.CrashTime != nil {
		p.out.CrashTime = *m.CrashTime
	}
	return true
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
	return "there is no vmcore beside the log"
}
