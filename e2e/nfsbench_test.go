package e2e

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/rpc"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/sender/nfsfs"
	"github.com/corehaul/corehaul/sender/nfsfs/nfs3"
)

// BenchmarkNFS writes the vmcore of a guest to Ganesha in pieces of 1 MiB and has it committed, as dumps are written, beside the
// NFS library that ours took its messages from: x/library is our time as a multiple of its.
func BenchmarkNFS(b *testing.B) {
	c, err := lab.CaptureELF(b.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", Kexec: "c"})
	if err != nil {
		b.Fatal(err)
	}
	data, err := os.ReadFile(c.ELF)
	if err != nil {
		b.Fatal(err)
	}
	export := b.TempDir()
	g := nfsServer(b, lab.GaneshaExport{Path: export})
	var ours, library time.Duration
	for b.Loop() {
		ours += nfsBenchOurs(b, g, export, data)
		library += nfsBenchLibrary(b, g, export, data)
	}
	benchReport(b, ours, map[string]time.Duration{"library": library})
}

// nfsBenchPiece is the length of a write.
const nfsBenchPiece = 1 << 20

// nfsBenchPieces calls write for each piece of data.
func nfsBenchPieces(b *testing.B, data []byte, write func(piece []byte, off int) error) {
	b.Helper()
	for off := 0; off < len(data); off += nfsBenchPiece {
		if err := write(data[off:min(off+nfsBenchPiece, len(data))], off); err != nil {
			b.Fatal(err)
		}
	}
}

func nfsBenchOurs(b *testing.B, g *lab.Ganesha, export string, data []byte) time.Duration {
	b.Helper()
	conf := nfs3.Config{Host: "127.0.0.1", Port: lab.GaneshaNFS, MountPort: lab.GaneshaMount}
	conf.Dial = func(ctx context.Context, _ *net.Dialer, _, addr string) (net.Conn, error) { return g.Dial(ctx, addr) }
	fsys, err := nfsfs.Mount(b.Context(), conf, export, "bench")
	if err != nil {
		b.Fatal(err)
	}
	defer fsys.Close()
	start := time.Now()
	file, err := fsys.Create("ours")
	if err != nil {
		b.Fatal(err)
	}
	nfsBenchPieces(b, data, func(piece []byte, off int) error {
		_, err := file.WriteAt(piece, int64(off))
		return err
	})
	if err := file.Sync(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	nfsBenchCheck(b, filepath.Join(export, "ours"), len(data), fsys.Remove)
	return took
}

func nfsBenchLibrary(b *testing.B, g *lab.Ganesha, export string, data []byte) time.Duration {
	b.Helper()
	var target *nfs.Target
	err := g.Within(func() error {
		mount, err := nfs.DialMount("127.0.0.1")
		if err != nil {
			return err
		}
		target, err = mount.Mount(export, rpc.AuthUnix{Machinename: "bench", GidLen: 1}.Auth())
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = target.Close() }() // the connection; the file is closed below
	start := time.Now()
	file, err := target.OpenFile("library", 0o640)
	if err != nil {
		b.Fatal(err)
	}
	nfsBenchPieces(b, data, func(piece []byte, _ int) error {
		n, err := file.Write(piece)
		if err == nil && n < len(piece) {
			err = io.ErrShortWrite
		}
		return err
	})
	if err := file.Close(); err != nil { // a COMMIT
		b.Fatal(err)
	}
	took := time.Since(start)
	nfsBenchCheck(b, filepath.Join(export, "library"), len(data), target.Remove)
	return took
}

// nfsBenchCheck checks the length of a file and removes it, over NFS, because the server keeps what it knows of names for a while.
func nfsBenchCheck(b *testing.B, path string, want int, remove func(name string) error) {
	b.Helper()
	fi, err := os.Stat(path)
	if err != nil || fi.Size() != int64(want) {
		b.Fatalf("%s: %v, %v, want %d bytes", path, fi, err, want)
	}
	if err := remove(filepath.Base(path)); err != nil {
		b.Fatal(err)
	}
}
