package sender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender/sshdial/sshdialtest"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// sftpPeer is an SSH server with SFTP and no receiver, for files below dir.
func sftpPeer(t *testing.T, dir string) *sshdialtest.Server {
	t.Helper()
	return sftpPeerOver(t, dir, func(ch ssh.Channel) io.ReadWriteCloser { return ch })
}

// sftpPeerOver is one that reads and writes what a function makes of each channel.
func sftpPeerOver(t *testing.T, dir string, over func(ssh.Channel) io.ReadWriteCloser) *sshdialtest.Server {
	t.Helper()
	return sshdialtest.Start(t, map[string]func(ssh.Channel){sftpSubsystem: func(ch ssh.Channel) {
		server, err := sftp.NewServer(over(ch), sftp.WithServerWorkingDirectory(dir))
		if err != nil {
			t.Error(err)
			return
		}
		_ = server.Serve() // it ends with the client
	}}, "ed25519")
}

// sftpOptions are those of a dump to such a server.
func sftpOptions(t *testing.T, s *sshdialtest.Server) Options {
	t.Helper()
	o := options(newFakeReceiver(t))
	o.To, o.Dial = []string{"ssh://dumps@" + s.Addr}, sshDialer(t, s)
	return o
}

// sftpDump verifies the only dump below dir and returns its directory.
func sftpDump(t *testing.T, dir string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, defaultRoot, dumpdir.DumpsName, "*", "*"))
	if err != nil || len(list) != 1 {
		t.Fatalf("dumps: %q, %v, want one", list, err)
	}
	d, err := dumpdir.Open(dumpdir.OS{}, list[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }() // only read
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err != nil || rep.Damaged != 0 {
		t.Fatalf("verify: %+v, %v", rep, err)
	}
	left, err := filepath.Glob(filepath.Join(list[0], "*.lock*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %q, %v", left, err)
	}
	return list[0]
}

// sftpPages compares the pages of a dump with those of the plan, and returns how many are there.
func sftpPages(t *testing.T, dir string, plan *Plan) int {
	t.Helper()
	image, err := dumpfile.Open(filepath.Join(dir, dumpdir.VMCoreName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = image.Close() }() // only read
	n, page := 0, make([]byte, testPage)
	err = plan.each(context.Background(), numTiers, func(_ uint8, _ uint64, extents []mem.Extent) error {
		for _, e := range extents {
			for pfn := e.Start; pfn < e.End(); pfn++ {
				if image.ReadPage(page, pfn) != nil {
					continue
				}
				if n++; !bytes.Equal(page, fakePage(pfn)) {
					return fmt.Errorf("pfn %d differs", uint64(pfn))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return n
}

// TestSendSFTP sends to a server without a receiver: with each encoding, once more, and with another plan.
func TestSendSFTP(t *testing.T) {
	for _, encoding := range []string{"auto", "zstd", "lz4", "none"} {
		t.Run(encoding, func(t *testing.T) {
			src, _ := newFakeSource(t)
			dir := t.TempDir()
			o := sftpOptions(t, sftpPeer(t, dir))
			o.Level, o.Encoding = 0, encoding
			res, err := Send(t.Context(), src, o)
			if err != nil {
				t.Fatal(err)
			}
			plan := mustPlan(t, src, o)
			if n := sftpPages(t, sftpDump(t, dir), plan); res.State != protocol.StateComplete || uint64(n) != plan.Sum.Kept {
				t.Errorf("%s, %d pages, want %d", res.State, n, plan.Sum.Kept)
			}
			if again, err := Send(t.Context(), src, o); err != nil || !again.Known || again.ID != res.ID {
				t.Errorf("sent once more: %+v, %v, want it to be known", again, err)
			}
		})
	}
}

// TestSFTPResume: a dump that was sealed with the log goes on with pages. One that is partial goes on with its own
// plan only.
func TestSFTPResume(t *testing.T) {
	src, img := newFakeSource(t)
	dir := t.TempDir()
	o := sftpOptions(t, sftpPeer(t, dir))
	o.Level, o.LogOnly = 0, true
	if res, err := Send(t.Context(), src, o); err != nil || res.State != protocol.StateLogOnly {
		t.Fatalf("%+v, %v, want the log", res, err)
	}
	if _, err := os.Stat(filepath.Join(sftpDump(t, dir), dumpdir.LogName)); err != nil {
		t.Error(err)
	}
	const bad = 100
	for pfn := range mem.PFN(bad) {
		img.bad[mem.PFN(12000/fewer)+pfn] = true
	}
	o.LogOnly = false
	res, err := Send(t.Context(), src, o)
	if err != nil || res.State != protocol.StatePartial || res.Lost != bad {
		t.Fatalf("%+v, %v, want it partial", res, err)
	}
	plan := mustPlan(t, src, o)
	if n := sftpPages(t, sftpDump(t, dir), plan); uint64(n) != plan.Sum.Kept-bad {
		t.Errorf("%d pages, want %d", n, plan.Sum.Kept-bad)
	}
	o.Level = 31
	if _, err := Send(t.Context(), src, o); !errors.Is(err, protocol.CodePlanMismatch) || !strings.Contains(err.Error(), "at level 0") {
		t.Errorf("another plan: %v, want it refused", err)
	}
}

// sftpCutChannel calls cut when a client has sent so many bytes.
type sftpCutChannel struct {
	ssh.Channel
	left int
	cut  func()
}

func (c *sftpCutChannel) Read(p []byte) (int, error) {
	n, err := c.Channel.Read(p)
	if c.left -= n; c.left <= 0 {
		c.cut()
	}
	return n, err
}

// TestSFTPCut breaks the line in the midst of a dump: it goes on in the same directory.
func TestSFTPCut(t *testing.T) {
	src, _ := newFakeSource(t)
	dir := t.TempDir()
	var s *sshdialtest.Server
	var sessions atomic.Int32
	cut := sync.OnceFunc(func() { s.Cut() })
	s = sftpPeerOver(t, dir, func(ch ssh.Channel) io.ReadWriteCloser {
		sessions.Add(1)
		return &sftpCutChannel{Channel: ch, left: 4 << 20, cut: cut}
	})
	o := sftpOptions(t, s)
	o.Level = 0
	o.Meter = new(Meter)
	var said strings.Builder
	o.Log = func(format string, args ...any) {
		t.Logf(format, args...)
		fmt.Fprintf(&said, format+"\n", args...)
	}
	res, err := Send(t.Context(), src, o)
	if err != nil || res.State != protocol.StateComplete {
		t.Fatalf("%+v, %v, want it complete", res, err)
	}
	if n := sessions.Load(); n < 2 {
		t.Errorf("%d sessions, want more: the line broke", n)
	}
	plan := mustPlan(t, src, o)
	if n := sftpPages(t, sftpDump(t, dir), plan); uint64(n) != plan.Sum.Kept {
		t.Errorf("%d pages, want %d", n, plan.Sum.Kept)
	}
	if strings.Contains(said.String(), "the store failed") {
		t.Error("a broken line was taken for a failure of the store")
	}
}

// TestSFTPReadOnly: a directory that cannot be written is named.
func TestSFTPReadOnly(t *testing.T) {
	src, _ := newFakeSource(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, defaultRoot), nil, 0o600); err != nil { // a file where a directory has to be
		t.Fatal(err)
	}
	o := sftpOptions(t, sftpPeer(t, dir))
	o.Patience = 0
	if _, err := Send(t.Context(), src, o); !errors.Is(err, protocol.CodeStorage) || !strings.Contains(err.Error(), defaultRoot) {
		t.Errorf("got %v, want an error that names %s", err, defaultRoot)
	}
}

// TestDepotPaths: where the dumps of a target go.
func TestDepotPaths(t *testing.T) {
	for target, want := range map[string]string{
		"ssh://u@h": "corehaul", "ssh://u@h/": "corehaul", "ssh://u@h/srv/dumps": "/srv/dumps", "ssh://u@h/srv//x/": "/srv/x",
		"ssh://u@h/~/dumps": "dumps", "ssh://u@h/../../etc": "/etc",
	} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		if got := depotRoot(u); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
	for addr, want := range map[string]string{"192.0.2.7:4711": "ip-192.0.2.7", "[2001:db8::1]:22": "ip-2001-db8--1", "[fe80::1%eth0]:22": "ip-fe80--1"} {
		if got := addressName(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}
