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

// Times of a dump that waits for the lock of another writer.
const (
	lockTry = time.Second
	// lockPatience is enough for a lock to become stale.
	lockPatience = 2 * time.Minute
)

// waitEvery is the time between two WAITs during long operations.
const waitEvery = 5 * time.Second

// pace says how much page data, in bytes, may be written and not durable.
type pace struct {
	// window is how many bytes of chunks may be unacknowledged. It takes little memory, because chunks are written as they come.
	window int64
	// Chunks are made durable after commitBytes of page data or interval, whichever comes first.
	commitBytes int64
	interval    time.Duration
}

var (
	overNetwork = pace{window: 16 << 20, commitBytes: 8 << 20, interval: 500 * time.Millisecond}
	// An fsync of a local file system waits for the disk with all of its data, and a lost window costs the dump's end at worst: what
	// cuts the disk's power ends the memory that was dumped, too. A window of two commits lets pages come while one waits.
	onLocalDisk = pace{window: 32 << 20, commitBytes: 16 << 20, interval: time.Second}
)

// Config says where dumps go.
type Config struct {
	FS dumpdir.FS
	// Root is the directory of the store.
	Root string
	// Host is used if the crashed kernel's nodename is no valid name of a host.
	Host string
	// Peer is the sender's own address, Transport the way to the server, Tool the name of this program, for the manifest.
	Peer, Transport, Tool string
	// Note says in the sender's log where the dump goes.
	Note string
	// Lost reports whether an error of FS means that the server cannot be reached. Such an error says nothing about stored data.
	Lost func(error) bool
	// Local says that FS is a file system of this machine.
	Local bool
}

func (c *Config) pace() pace {
	if c.Local {
		return onLocalDisk
	}
	return overNetwork
}

// depot is the intake.Policy of one session.
type depot struct {
	Config
	*intake.Session
	intake.Unlimited
	host string
	left int64 // bytes known to be free on the server; see RoomFor
}

// Serve runs the receiving side of one session over nc, until the session or ctx ends. It closes nc.
func Serve(ctx context.Context, nc net.Conn, c Config) error {
	d, pace := &depot{Config: c}, c.pace()
	d.Session = intake.NewSession(nc, intake.Config{
		Tool: c.Tool, Peer: c.Peer, Transport: c.Transport, Title: new(printk.TitleScanner), Codec: kdumpfile.Snappy,
		Window: pace.window, Workers: 1, CommitBytes: pace.commitBytes, CommitInterval: pace.interval, WaitEvery: waitEvery,
		SealCommits: c.Local,
	}, d)
	err := d.Run(ctx)
	_ = d.Shutdown(d.wireError(err)) // the sender may be gone
	return err
}

// wireError returns the error to send to the sender. It hides nothing, because the sender is in the same process.
func (d *depot) wireError(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, context.Canceled) {
		return nil
	}
	e := intake.WireError(err)
	if d.Lost(err) {
		e.Text, e.RetryAfter = "the line to the server broke", 0 // a new line may work at once
	}
	if e.Err != nil && e.Text != "" {
		cause, _, _ := strings.Cut(e.Err.Error(), "\n") // consequences follow in other lines
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

// Open opens the writer of the dump. It waits until a lock is free or stale.
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

// unlessDamaged returns w, unless err says that the dump is damaged. Then it returns the writer of another dump directory, at
// the place of a store's challengers, and does not touch the damaged dump.
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

// Admit admits every session.
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

// MakeRoom accepts every plan, because only the pages show how much space a dump needs.
func (d *depot) MakeRoom(_ context.Context, _ *protocol.PlanEnd, m *protocol.PlanOK) (*protocol.Finish, error) {
	m.Note = protocol.CleanText(d.Note, maxText)
	return nil, nil // the sender goes on
}

// Seal seals the dump and closes its writer, because this process may end as soon as the sender gets SEALED.
func (d *depot) Seal(ctx context.Context, f *protocol.Finish) (intake.Outcome, error) {
	res, err := intake.Seal(ctx, d.W, f, intake.Reason(f))
	if err == nil {
		err = d.W.Close()
	}
	return intake.Outcome{Result: res, Dir: d.W.Dir()}, err
}
