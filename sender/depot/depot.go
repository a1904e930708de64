package depot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/hostname"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Times of a session.
const (
	linger    = 2 * time.Second
	waitEvery = 5 * time.Second // WAIT while something takes its time
	lockTry   = time.Second
	// lockPatience is enough for a lock to become stale.
	lockPatience = 2 * time.Minute
)

// window is how much may be on its way to the disk. It takes no memory: chunks leave as they come.
const window = 16 << 20

// codec is for pages that come without a compressor of their own, as in a receiver.
const codec = kdumpfile.Snappy

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

// session is one session, from HELLO to SEALED.
type session struct {
	Config
	wire  *protocol.Conn
	began time.Time
	hello *protocol.Hello
	notes []byte
	ram   []mem.Range
	w     *dumpdir.Writer
	host  string
}

// Serve plays the receiver at the other end of nc, which it closes, until the session or ctx ends.
func Serve(ctx context.Context, nc net.Conn, c Config) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &session{Config: c, wire: protocol.NewConn(nc, protocol.Receiver), began: time.Now()}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = s.wire.KeepAlive(ctx, protocol.KeepAlive{}) }) // reads end with it
	release := context.AfterFunc(ctx, func() { _ = s.wire.Close() })
	defer release()
	err := s.run(ctx)
	err = errors.Join(err, s.close())
	_ = s.wire.Shutdown(s.lastWord(err), linger) // the sender may be gone
	return err
}

// lastWord is what the sender hears of an error. It is in the same process: nothing is hidden from it.
func (s *session) lastWord(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	e := intake.WireError(err)
	if s.Lost(err) {
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

// close makes durable what was put and lets the dump go. After a seal there is nothing to do.
func (s *session) close() error {
	if s.w == nil {
		return nil
	}
	w := s.w
	s.w = nil
	if _, sealed := w.Result(); !sealed {
		_, _ = w.Commit() // it has failed, or the session has: what is durable is
	}
	return w.Close()
}

// run goes through the states of the protocol.
func (s *session) run(ctx context.Context) error {
	m, err := s.wire.Read()
	if err != nil {
		return err
	}
	var ok bool
	if s.hello, ok = m.(*protocol.Hello); !ok {
		return outOfOrder(m, "HELLO")
	}
	if err := s.busy(ctx, "another writer may have the dump", func() error { return s.open(ctx) }); err != nil {
		return err
	}
	if err := s.takeLog(); err != nil {
		return err
	}
	if res, ok := s.w.Result(); ok && res.State == dumpdir.StateComplete {
		return s.sealed(&res)
	}
	finish, err := s.takePages(ctx)
	if err != nil {
		return err
	}
	return s.seal(ctx, finish)
}

func outOfOrder(m protocol.Message, want string) error {
	return protocol.Errorf(protocol.CodeOutOfOrder, "%s, expected %s", m.Type(), want)
}

// busy runs f and tells the sender now and then that it has to wait.
func (s *session) busy(ctx context.Context, what string, f func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		tick := time.NewTicker(waitEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if s.wire.Write(&protocol.Wait{Reason: what}) != nil {
				return // the session finds out
			}
		}
	})
	return f()
}

// hostOf returns the directory for the dumps of a machine.
func (s *session) hostOf() string {
	name := s.hello.Uts.Nodename
	if hostname.Check(name) != nil || strings.HasPrefix(name, "localhost") {
		return s.Host
	}
	return name
}

// open gets the writer of the dump. It waits for a lock to become stale.
func (s *session) open(ctx context.Context) error {
	s.host = s.hostOf()
	meta := intake.Meta(s.hello)
	meta.Host, meta.StartTime, meta.Transport, meta.Peer, meta.Receiver = s.host, s.began, "sftp", s.Peer, s.Tool
	var err error
	for end := time.Now().Add(lockPatience); ; {
		s.w, err = s.openOnce(meta)
		if !errors.Is(err, dumpdir.ErrLocked) || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(lockTry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) openOnce(meta dumpdir.Meta) (*dumpdir.Writer, error) {
	parent := path.Join(s.Root, dumpdir.DumpsName, s.host)
	if err := s.FS.MkdirAll(parent); err != nil {
		return nil, err
	}
	names, err := s.FS.ReadDir(parent)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, id, ok := strings.Cut(name, "-"); !ok || !strings.HasPrefix(meta.ID, id) {
			continue
		}
		dir := path.Join(parent, name)
		id, err := dumpdir.ReadID(s.FS, dir)
		if err == nil && id != meta.ID || errors.Is(err, dumpdir.ErrNotExist) {
			continue
		}
		var w *dumpdir.Writer
		if err == nil {
			w, err = dumpdir.Resume(s.FS, dir, dumpdir.Options{Reopen: true})
		}
		return s.unlessDamaged(meta, w, err)
	}
	w, err := dumpdir.Create(s.FS, path.Join(parent, dumpdir.DirName(&meta)), meta, dumpdir.Options{})
	if errors.Is(err, dumpdir.ErrExist) {
		err = fmt.Errorf("another dump has the name that this one would get: %w", err)
	}
	return s.unlessDamaged(meta, w, err)
}

// unlessDamaged returns the writer, or that of a dump beside the one that is damaged, which stays as it is: in the place that
// a store has for challengers.
func (s *session) unlessDamaged(meta dumpdir.Meta, w *dumpdir.Writer, err error) (*dumpdir.Writer, error) {
	var damage *dumpdir.DamageError
	if !errors.As(err, &damage) {
		return w, err
	}
	dir := path.Join(s.Root, dumpdir.NextName, s.host, meta.ID)
	w, err = dumpdir.Resume(s.FS, dir, dumpdir.Options{Reopen: true})
	if errors.Is(err, dumpdir.ErrNotExist) {
		w, err = dumpdir.Create(s.FS, dir, meta, dumpdir.Options{})
	}
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	return w, nil
}

// seal makes the dump final, lets it go, and says what it is.
func (s *session) seal(ctx context.Context, finish *protocol.Finish) error {
	var res dumpdir.Result
	err := s.busy(ctx, "the dump is sealed", func() (err error) {
		res, err = intake.Seal(ctx, s.w, finish, intake.Reason(finish))
		return err
	})
	if err != nil {
		return err
	}
	return s.sealed(&res)
}

func (s *session) sealed(res *dumpdir.Result) error {
	dir := s.w.Dir()
	// The sender may end, and its process with it, as soon as it hears of the seal.
	if err := s.close(); err != nil {
		return err
	}
	return s.wire.Write(intake.Sealed(s.hello.DumpID, dir, res))
}
