package kdumpclients

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/flattened"
)

const (
	// maxSmall bounds a file that is no dump. The largest known is the memory of POWER's firmware.
	maxSmall = 256 << 20
	// maxAhead is how far bytes of a stream may be ahead of missing ones.
	maxAhead = 256 << 20
)

var (
	// errRevoked ends an upload whose file was created again.
	errRevoked = errors.New("another upload replaced the file")
	errGone    = errors.New("the connection broke off")
)

// upload is an arriving file. The bytes of a small file, and of a file whose form is unknown yet, go to N.file unchanged. A
// dump in a stream goes through a sink, and N.file takes bytes that come too early.
type upload struct {
	h    *host
	f    *fileState // its fields are under h.mu
	dir  *dirState
	name string

	ctx    context.Context // ends with the upload
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	raw     *os.File
	have    flattened.Coverage // of raw
	size    int64              // may be larger than the bytes so far, if the client sets the length first
	log     *longLog           // for a log: keeps more than maxSmall bytes
	decided bool
	form    form   // empty until decided
	img     *image // the dump in raw, if raw is one
	sink    sink   // nil: bytes go to raw
	pos     int64  // bytes that the sink has taken
	strange error  // why the file cannot be read; its bytes are kept unchanged
	err     error  // the first failure, which all later calls return
	done    bool
}

// Create implements Tree.
func (t *tree) Create(p string) (Upload, error) {
	c, err := cleanPath(p)
	if err != nil {
		return nil, pathError("create", p, err)
	}
	var u *upload
	err = t.change(func(s *hostState) error {
		u, err = t.create(s, c)
		return err
	})
	if err != nil {
		if u != nil {
			u.Abort(err)
		}
		return nil, pathError("create", p, err)
	}
	return u, nil
}

// create creates the file at clean path c. mu is held.
func (t *tree) create(s *hostState, c string) (*upload, error) {
	if s.Dirs[c] != nil {
		return nil, syscall.EISDIR
	}
	if err := s.makeDirs(path.Dir(c), t.peer); err != nil {
		return nil, err
	}
	dir, name := s.Dirs[path.Dir(c)], path.Base(c)
	if dir.Files[name] == nil && s.files() >= maxFiles {
		return nil, fmt.Errorf("%w: %d files", syscall.ENOSPC, maxFiles)
	}
	if dumpcopy.IsLog(name) && dir.hasDump() {
		dir = s.crashedAgain(path.Dir(c), t.peer)
	}
	num := s.Next
	raw, err := plainfile.Create(t.path(num, "file"), 0o640)
	if err != nil {
		return nil, err
	}
	s.Next++
	if old := dir.Files[name]; old != nil {
		t.drop(old)
	}
	now := time.Now().UTC()
	f := &fileState{Num: num, Mod: now, Status: fileArriving}
	dir.put(name, f)
	dir.Used, dir.Peer = now, t.peer.Addr
	u := &upload{h: t.host, f: f, dir: dir, name: name, raw: raw}
	if dumpcopy.IsLog(name) {
		u.log = &longLog{most: t.svc.cfg.small, whole: new(printk.TitleScanner)}
	}
	u.ctx, u.cancel = context.WithCancelCause(context.Background())
	t.uploads[num] = u
	return u, nil
}

// WriteAt implements io.WriterAt.
func (u *upload) WriteAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.check(); err != nil {
		return 0, err
	}
	if off < 0 || off > maxImage*2-int64(len(p)) {
		return 0, fs.ErrInvalid
	}
	if err := u.write(p, off); err != nil {
		return 0, u.fail(err)
	}
	u.size = max(u.size, off+int64(len(p)))
	u.updateState()
	return len(p), nil
}

func (u *upload) write(p []byte, off int64) error {
	switch {
	case u.img != nil:
		if _, err := u.img.direct(p, off); err != nil {
			return err
		}
		return u.img.checkpoint()
	case u.sink != nil && !u.sink.undecided():
		if u.sink.image() != nil {
			return u.stream(p, off)
		}
		u.keepAsSent()
	}
	if err := u.writeFile(p, off); err != nil {
		return err
	}
	if !u.decided && u.have.From(0) >= magicLen {
		if err := u.decide(false); err != nil {
			return err
		}
	}
	return u.feed()
}

// writeFile writes to the file as the client sees it.
func (u *upload) writeFile(p []byte, off int64) error {
	if u.log != nil {
		return u.writeLog(p, off)
	}
	if off > u.most()-int64(len(p)) {
		return &StrangeFileError{fmt.Sprintf("a file of unknown kind may have at most %d MiB", u.h.svc.cfg.small>>20), syscall.EFBIG}
	}
	return u.writeRaw(p, off)
}

// most returns how long the file may be. Files of a known form, such as vmlinux, may be longer.
func (u *upload) most() int64 {
	if u.decided && u.form != formPlain {
		return maxImage
	}
	return u.h.svc.cfg.small
}

// writeRaw writes to raw.
func (u *upload) writeRaw(p []byte, off int64) error {
	if err := u.h.roomOf(u, int64(len(p))); err != nil {
		return err
	}
	n, err := u.raw.WriteAt(p, off)
	u.h.giveRoom(int64(n) - u.have.Add(off, int64(n)))
	if err == nil && u.have.Spans() > maxPieces {
		err = fmt.Errorf("%w: more than %d pieces with gaps between them", fs.ErrInvalid, maxPieces)
	}
	return err
}

// decide chooses the form of the file by its first bytes. It may wait for more bytes, unless all is set.
func (u *upload) decide(all bool) error {
	head := make([]byte, min(elfcore.HeadLen, u.have.From(0)))
	if _, err := u.raw.ReadAt(head, 0); err != nil {
		return err
	}
	f := sniff(head)
	if f == formELF {
		switch elfcore.KindOf(head, all) {
		case elfcore.KindUnknown:
			return nil
		case elfcore.KindOther:
			f = formOtherELF
		}
	}
	if strings.HasPrefix(u.name, "opalcore") {
		f = formPlain // an ELF core, but that of the firmware
	}
	u.decided, u.form = true, f
	switch {
	case f == formKdump || f == formELF:
		u.img = &image{h: u.h, num: u.f.Num, f: u.raw, have: &u.have, state: imageState{InPlace: true}}
	case f == formFlat:
		img, err := u.newImage(f)
		if err != nil {
			return err
		}
		u.sink = newFlat(img)
	case f.compressed():
		if err := u.h.svc.decoders.acquire(u.ctx, u.h.name); err != nil {
			return err
		}
		u.sink = newUnpacker(f, u.newImage, func() { u.h.svc.decoders.release(u.h.name) })
	}
	return nil
}

// newImage makes the file of a dump inside these formats.
func (u *upload) newImage(wrap ...form) (*image, error) {
	f, err := plainfile.Create(u.h.path(u.f.Num, "image"), 0o640)
	if err != nil {
		return nil, err
	}
	return &image{h: u.h, num: u.f.Num, f: f, have: new(flattened.Coverage), state: imageState{Wrap: wrap}}, nil
}

// stream passes bytes to the sink, or puts them aside if earlier bytes are missing.
func (u *upload) stream(p []byte, off int64) error {
	switch {
	case off < u.pos:
		return fmt.Errorf("%w: byte %d of a stream that was read up to %d cannot be changed", fs.ErrInvalid, off, u.pos)
	case off > u.pos:
		if off+int64(len(p))-u.pos > maxAhead {
			return fmt.Errorf("%w: byte %d of a stream came before byte %d", fs.ErrInvalid, off, u.pos)
		}
		return u.writeRaw(p, off)
	}
	if err := u.consume(p); err != nil {
		return err
	}
	return u.feed()
}

func (u *upload) consume(p []byte) error {
	n, err := u.sink.Write(p)
	u.pos += int64(n)
	if errors.Is(err, errNoDump) {
		return nil // the file has all bytes
	}
	return err
}

// feed passes to the sink the bytes that were put aside and follow those that it has taken.
func (u *upload) feed() error {
	if u.sink == nil {
		return nil
	}
	buf := make([]byte, min(256<<10, u.have.From(u.pos)))
	for len(buf) > 0 && (u.sink.undecided() || u.sink.image() != nil) {
		if _, err := u.raw.ReadAt(buf, u.pos); err != nil {
			return err
		}
		if err := u.consume(buf); err != nil {
			return err
		}
		buf = buf[:min(int64(cap(buf)), u.have.From(u.pos))]
	}
	return nil
}

// check returns the error that every call gets now. mu is held.
func (u *upload) check() error {
	if u.done && u.err == nil {
		return fs.ErrClosed
	}
	return u.err
}

func (u *upload) fail(err error) error {
	if u.err == nil {
		u.err = err
	}
	return u.err
}

// updateState sets the file's size in the tree.
func (u *upload) updateState() {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	now := time.Now().UTC()
	u.f.Size, u.f.Mod, u.dir.Used = u.size, now, now
}

// Truncate implements Upload.
func (u *upload) Truncate(size int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.check(); err != nil {
		return err
	}
	if size == u.size {
		return nil
	}
	if size < 0 || size > u.most() || u.sink != nil || u.img != nil && size < u.have.End() {
		return fs.ErrInvalid
	}
	if size < u.have.End() {
		if err := u.raw.Truncate(size); err != nil {
			return u.fail(err)
		}
		had := u.have.Bytes()
		u.have.Cut(size)
		u.h.giveRoom(had - u.have.Bytes())
	}
	u.size = size
	u.updateState()
	return nil
}
