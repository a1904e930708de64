package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/sender/depot"
	"github.com/corehaul/corehaul/sender/disk"
	"github.com/corehaul/corehaul/sender/localfs"
)

// An OpenDir opens the directory of a target in a local file system.
type OpenDir func(ctx context.Context, t localfs.Target) (*localfs.FS, error)

// DialFile returns a Dialer for targets of the form localfs.Form. The connection leads to a depot in this process, which writes the
// dump into the directory of the target. tool names this program in the manifest.
func DialFile(tool string, open OpenDir) Dialer {
	return dialFile(tool, open, func(f *localfs.FS) dumpdir.FS { return f })
}

// dialFile is DialFile with a file system that over makes of the directory.
func dialFile(tool string, open OpenDir, over func(*localfs.FS) dumpdir.FS) Dialer {
	return func(ctx context.Context, target string) (net.Conn, error) {
		u, err := url.Parse(target)
		if err != nil {
			return nil, err
		}
		t, err := localfs.ParseURL(u)
		if err != nil {
			return nil, &handshakeError{fmt.Errorf("target %q: %w", target, err)}
		}
		files, err := open(ctx, t)
		if err != nil {
			return nil, openError(err)
		}
		note := "the dump is written into " + files.Root()
		if !t.FS.IsZero() {
			note += " on " + t.FS.String()
		}
		if files.InMemory() {
			note += ", which is in memory: it is lost when the machine reboots"
		}
		conf := depot.Config{
			FS: over(files), Root: files.Root(), Host: "localhost", Transport: "disk", Tool: tool, Note: note,
			Lost: func(error) bool { return false }, Peer: target, Local: true,
		}
		return startDepot(ctx, conf, line{local: true, cut: func() {}, close: func() { _ = files.Close() }}), nil
	}
}

// OpenMounted is the OpenDir of a running system, where all file systems are mounted.
func OpenMounted(_ context.Context, t localfs.Target) (*localfs.FS, error) {
	if !t.FS.IsZero() {
		return nil, &localfs.Error{
			Dir: t.Dir, Err: errors.New("only a capture kernel mounts a file system that ?fs= names"), Hint: "write file:///PATH, with the PATH where it is mounted now",
		}
	}
	return localfs.Open(t.Dir)
}

// OpenOnDisk returns the OpenDir of a capture kernel. mount waits for a file system and returns where it is mounted.
func OpenOnDisk(mount func(context.Context, disk.Spec) (string, error)) OpenDir {
	return func(ctx context.Context, t localfs.Target) (*localfs.FS, error) {
		if t.FS.IsZero() {
			return nil, &localfs.Error{
				Dir: t.Dir, Err: errors.New("a capture kernel has no file system mounted"), Hint: "name the file system, " + localfs.Form,
			}
		}
		dir, err := mount(ctx, t.FS)
		if err != nil {
			return nil, err
		}
		return localfs.OpenBelow(dir, t.Dir)
	}
}

// openError returns a *handshakeError for what another try cannot change.
func openError(err error) error {
	_, refused := errors.AsType[*disk.RefusedError](err)
	if _, ok := errors.AsType[*localfs.Error](err); ok || refused {
		return &handshakeError{err}
	}
	return err
}
