package depot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strings"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/hostname"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// While a dump waits for the lock of another writer:
const (
	lockTry = time.Second
	// lockPatience is enough for a lock to become stale.
	lockPatience = 2 * time.Minute
)

// waitEvery is the time between two WAIT while something takes its time.
const waitEvery = 5 * time.Second

// window is how much may be on its way to the disk. It takes little memory: chunks leave as they come.
const window = 16 << 20

// When what was put is made durable: after so much page data or so long, whatever comes first.
const (
	commitBytes    = window / 2
	commitInterval = 500 * time.Millisecond
)

// Config says where dumps go.
type Config struct {
	FS dumpdir.FS
	// Root is the directory of the store.
	Root string
	// Host is used when the crashed kernel had no name that can be one.
	Host string
	// Peer is the sender's own address, Tool the name of this program, for the manifest.
	Peer, Tool string
	// Note tells people at the sender where the dump goes.
	Note string
	// Lost reports whether an error of FS means that its server is out of reach, and nothing about what is stored there.
	Lost func(error) bool
}

// depot is the intake.Policy of one session.
type depot struct {
	Config
	*intake.Session
	intake.Unlimited
	host string
	left int64 // bytes known to be free on the server; see RoomFor
}

// Serve plays the receiver at the other end of nc, which it closes, until the session or ctx ends.
func Serve(ctx context.Context, nc net.Conn, c Config) error {
	d := &depot{Config: c}
	d.Session = intake.NewSession(nc, intake.Config{
		Tool: c.Tool, Peer: c.Peer, Transport: "sftp", Title: new(printk.TitleScanner), Codec: kdumpfile.Snappy,
		Window: window, Workers: 1, CommitBytes: commitBytes, CommitInterval: commitInterval, WaitEvery: waitEvery,
	}, d)
	err := d.Run(ctx)
	_ = d.Shutdown(d.lastWord(err)) // the sender may be gone
	return err
}

// lastWord is what the sender hears of an error. It is in the same process: nothing is hidden from it.
func (d *depot) lastWord(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, context.Canceled) {
		return nil
	}
	e := intake.WireError(err)
	if d.Lost(err) {
		e.Text, e.RetryAfter = "the line to the server broke", 0 // the next one may be there at once
	}
	if e.Err != nil && e.Text != "" {
		cause, _, _ := strings.Cut(e.Err.Error(), "\n") // what failed because of it as well follows
		e.Text = protocol.CleanText(e.Text+": "+cause, maxText)
	}
	return e
}

// maxText keeps a text within what the protocol allows.
const maxText = 1000

// hostOf returns the directory for the dumps of a machine.
func (d *depot) hostOf() string {
	name := d.Hello.Uts.Nodename
	if hostname.Check(name) != nil || strings.HasPrefix(name, "localhost") {
		return d.Host
	}
	return name
}

// Open gets the writer of the dump. It waits for a lock to become stale.
func (d *depot) Open(ctx context.Context) error {
	d.host = d.hostOf()
	meta := d.Meta(d.host)
	return d.Busy(ctx, "another writer may have the dump", func() (err error) {
		for end := time.Now().Add(lockPatience); ; {
			d.W, err = d.openOnce(meta)
			if !errors.Is(err, dumpdir.ErrLocked) || time.Now().After(end) {
				return err
			}
			select {
			case <-time.After(lockTry):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}

func (d *depot) openOnce(meta dumpdir.Meta) (*dumpdir.Writer, error) {
	parent := path.Join(d.Root, dumpdir.DumpsName, d.host)
	if err := d.FS.MkdirAll(parent); err != nil {
		return nil, err
	}
	names, err := d.FS.ReadDir(parent)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, id, ok := strings.Cut(name, "-"); !ok || !strings.HasPrefix(meta.ID, id) {
			continue
		}
		dir := path.Join(parent, name)
		id, err := dumpdir.ReadID(d.FS, dir)
		if err == nil && id != meta.ID || errors.Is(err, dumpdir.ErrNotExist) {
			continue
		}
		var w *dumpdir.Writer
		if err == nil {
			w, err = dumpdir.Resume(d.FS, dir, dumpdir.Options{Reopen: true})
		}
		return d.unlessDamaged(meta, w, err)
	}
	w, err := dumpdir.Create(d.FS, path.Join(parent, dumpdir.DirName(&meta)), meta, dumpdir.Options{})
	if errors.Is(err, dumpdir.ErrExist) {
		err = fmt.Errorf("another dump has the name that this one would get: %w", err)
	}
	return d.unlessDamaged(meta, w, err)
}

// unlessDamaged returns the writer, or that of a dump beside the one that is damaged, which stays as it is: in the place that
// a store has for challengers.
func (d *depot) unlessDamaged(meta dumpdir.Meta, w *dumpdir.Writer, err error) (*dumpdir.Writer, error) {
	var damage *dumpdir.DamageError
	if !errors.As(err, &damage) {
		return w, err
	}
	dir := path.Join(d.Root, dumpdir.NextName, d.host, meta.ID)
	w, err = dumpdir.Resume(d.FS, dir, dumpdir.Options{Reopen: true})
	if errors.Is(err, dumpdir.ErrNotExist) {
		w, err = dumpdir.Create(d.FS, dir, meta, dumpdir.Options{})
	}
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	return w, nil
}

// Admit admits everybody.
func (d *depot) Admit(_ context.Context, m *protocol.Welcome) (*protocol.Finish, error) {
	m.Host = d.host
	return nil, nil // the sender goes on
}

// OtherPlan refuses another plan than the one that is stored.
func (d *depot) OtherPlan(_ context.Context, stored *dumpdir.PlanInfo) error {
	e := protocol.Errorf(protocol.CodePlanMismatch, "%s has another plan, of %d pages at level %d", d.W.Dir(), stored.Pages, stored.DumpLevel)
	e.Hint = fmt.Sprintf("send it with --level %d, or move that directory away", stored.DumpLevel)
	return e
}

// MakeRoom takes every plan: what a dump is going to take is known by its pages only.
func (d *depot) MakeRoom(_ context.Context, _ *protocol.PlanEnd, m *protocol.PlanOK) (*protocol.Finish, error) {
	m.Note = protocol.CleanText(d.Note, maxText)
	return nil, nil // the sender goes on
}

// Seal makes the dump final and lets it go: the sender may end, and its process with it, as soon as it hears of the seal.
func (d *depot) Seal(ctx context.Context, f *protocol.Finish) (intake.Outcome, error) {
	res, err := intake.Seal(ctx, d.W, f, intake.Reason(f))
	if err == nil {
		err = d.W.Close()
	}
	return intake.Outcome{Result: res, Dir: d.W.Dir()}, err
}
