package dumpdir

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/corehaul/corehaul/mem"
)

var errNotYet = errors.New("not yet")

// State is how far a dump got.
type State string

const (
	StateArriving State = "arriving" // not sealed; pages or the log may still come
	StateComplete State = "complete" // sealed with every page of its plan
	StatePartial  State = "partial"  // sealed with pages missing
	StateLogOnly  State = "log-only" // sealed with the log and no pages
	StateDamaged  State = "damaged"  // stored bytes are not what was written
)

// Meta is what is known of a dump when its directory is made. Strings that come
// from the crashed machine are cut to size and cleaned before they are stored.
type Meta struct {
	ID        string // 16 to 64 characters of 0-9a-f
	Host      string // the name that the peer proved, not the one it says
	Release   string // OSRELEASE
	Nodename  string
	Machine   string // x86_64, aarch64
	BuildID   string
	PanicLine string
	CrashTime time.Time // zero when not known
	StartTime time.Time // when the dump began to arrive; zero means now
	Transport string    // tls, ssh, nfs, file
	Peer      string    // address of the peer
	Sender    string    // name and version of the sending program
	Receiver  string    // name and version of the receiving program
}

// Options of Create and Resume. The zero value is right.
type Options struct {
	// Changed, when set, is called after every change of the manifest that is durable. It must not call the Writer.
	Changed func(*Manifest)
	// Reopen lets Resume take up a dump that was sealed partial or log-only.
	Reopen bool
}

// Writer writes one dump. Methods may be called from several goroutines; those
// that write are serialised. After a write or fsync has failed the writer stays
// failed and repeats that first error: what became of the bytes is unknown. Close it,
// and Resume from what is durable.
type Writer struct{}

// Create makes the directory dir of a new dump, durably, and locks it. The error
// matches ErrExist when a dump is there, ErrLocked when another writer has it.
func Create(fsys FS, dir string, meta Meta, opts Options) (*Writer, error) { return nil, errNotYet }

// Resume takes up an unsealed dump where its journal ends. What the last writer did not
// commit is cut off; the front of vmcore is written again. A sealed dump whose seal was
// interrupted is finished and can be asked for its Result; it takes no chunks unless
// opts.Reopen is set. Errors match ErrNotExist, ErrLocked, ErrUnsupported or are a *DamageError.
func Resume(fsys FS, dir string, opts Options) (*Writer, error) { return nil, errNotYet }

// Takeover gives the dump to a new handle at once. What the old one has put is committed if
// it can be; from here on every call on the old one returns ErrRevoked. An old writer that
// has failed is closed, and the dump resumed from what is durable.
func (w *Writer) Takeover() (*Writer, error) { return nil, errNotYet }

// StoreLog stores the kernel log. When it returns, vmcore-dmesg.txt is durable.
// Called again it replaces the log.
func (w *Writer) StoreLog(r io.Reader) error { return errNotYet }

// UpdateMeta changes what the manifest says, for facts that come later than
// Create (the panic line, which is read from the log). ID, Host and StartTime stay.
func (w *Writer) UpdateMeta(change func(*Meta)) error { return errNotYet }

// Manifest returns the manifest as it is now.
func (w *Writer) Manifest() *Manifest { return nil }

// Plan returns the stored plan. ok is false when there is none yet.
func (w *Writer) Plan() (info PlanInfo, ok bool) { return PlanInfo{}, false }

// StartPlan begins to store the plan. The runs go to the builder; the plan counts from
// the return of its Finish on. The error matches ErrHavePlan, ErrSealed or ErrBadPlan.
func (w *Writer) StartPlan(f Facts) (*PlanBuilder, error) { return nil, errNotYet }

// PlanBuilder takes the runs of a plan, in constant memory. One goroutine uses it.
type PlanBuilder struct{}

// Add appends a run of pages that will be sent. Runs ascend and are disjoint; they may
// touch. The error matches ErrBadPlan.
func (b *PlanBuilder) Add(e mem.Extent) error { return errNotYet }

// Finish checks the runs against end, makes the plan durable and lays out
// vmcore-incomplete, which crash can open from then on.
func (b *PlanBuilder) Finish(end PlanEnd) error { return errNotYet }

// Abort drops the plan. After Finish it does nothing.
func (b *PlanBuilder) Abort() {}

// PutChunk stores the pages of a chunk; they are durable after the next Commit. It keeps
// nothing of c. The chunk's pages must have been checked (PageDecoder.Check).
// Errors that harm nothing: ErrHaveChunk, ErrOutsidePlan, ErrHavePage, ErrBadChunk.
func (w *Writer) PutChunk(c *Chunk) error { return errNotYet }

// Commit makes all chunks durable that were put before the call, and returns
// the numbers of those that this call made so. Chunks may be put meanwhile.
func (w *Writer) Commit() ([]SeqRange, error) { return nil, errNotYet }

// Have returns the durable chunks, ascending.
func (w *Writer) Have() []SeqRange { return nil }

// Progress counts what is in a dump.
type Progress struct {
	Planned  uint64 // pages of the plan
	Present  uint64 // pages here, zero pages included; durable ones only
	Zero     uint64 // of those, zero pages
	Chunks   uint64 // chunks here
	Bytes    int64  // length of vmcore
	PageData int64  // stored bytes of pages
}

// Missing returns how many planned pages are not here.
func (p Progress) Missing() uint64 { return p.Planned - p.Present }

// Progress returns the durable counts.
func (w *Writer) Progress() Progress { return Progress{} }

// Result is what a seal left.
type Result struct {
	State    State
	Reason   string // why pages are missing; empty when complete
	Progress Progress
	SHA256   string // of vmcore, in hexadecimal; empty when there is none
	VMCore   string // name of the vmcore file, with dir; empty when there is none
}

// Seal commits, makes the dump final and returns what it is: complete when every page of
// the plan is here; else partial with reason, or an error that matches ErrMissingPages when reason is
// empty; log-only when there is no plan. It may be called again, and after a kill at
// any point inside it Resume finishes what it began. ctx ends the long part, reading vmcore for
// its SHA-256, before anything was changed for good.
func (w *Writer) Seal(ctx context.Context, reason string) (Result, error) {
	return Result{}, errNotYet
}

// Result returns what the seal left; ok is false when the dump is not sealed.
func (w *Writer) Result() (res Result, ok bool) { return Result{}, false }

// Close ends the writer and its lock without a seal: the dump can be resumed. Chunks
// that were not committed are lost. Closing twice is fine.
func (w *Writer) Close() error { return nil }
