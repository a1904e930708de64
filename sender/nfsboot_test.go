package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/rpc"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender/nfsfs/nfs3/nfs3test"
)

// bootingNFS is an NFS server that starts when boot has passed. Until then it does one thing unlike others. Its ports are real ones
// to the client, which asks the portmapper.
type bootingNFS struct {
	refuse  uint16 // a port where nobody listens
	silent  uint16 // a port where nobody answers
	port0   bool   // the portmapper knows no service
	mount   uint32 // the answer to MOUNT
	deed    nfs3test.Deed
	boot    time.Duration
	started func() bool
}

// mountPort and nfsPort tell the two services apart.
const (
	bootMountPort = 20048
	bootNFSPort   = 2049
)

// serve starts the server and returns a dialer for it.
func (b *bootingNFS) serve(t *testing.T) (*nfs3test.Server, Dialer) {
	t.Helper()
	start := time.Now()
	b.started = func() bool { return time.Since(start) >= b.boot }
	asked := 0
	s := nfs3test.New(t, nfs3test.Behaviour{
		Hook: func(nfs3test.Call) (nfs3test.Deed, uint32) {
			if b.started() {
				return nfs3test.Do, 0
			}
			return b.deed, 0
		},
		Mapped: func() uint32 {
			if asked++; b.port0 && !b.started() {
				return 0
			}
			return []uint32{bootNFSPort, bootMountPort}[asked%2] // MOUNT is asked for first
		},
		MountStatus: func() uint32 {
			if b.started() {
				return 0
			}
			return b.mount
		},
	})
	return s, dialNFS("test 1", func(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
		_, text, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		port, err := strconv.ParseUint(text, 10, 16)
		switch {
		case err != nil:
			return nil, err
		case b.started():
		case uint16(port) == b.refuse:
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		case uint16(port) == b.silent:
			near, far := net.Pipe()
			context.AfterFunc(ctx, func() { _ = far.Close() })
			go func() { _, _ = far.Read(make([]byte, 1<<10)) }()
			return near, nil
		}
		return s.Dial(ctx, d, network, addr)
	})
}

// TestNFSBoots: whatever a server lacks while it starts, the dump waits for it, without stubbornness and without ports in the target.
func TestNFSBoots(t *testing.T) {
	for name, b := range map[string]*bootingNFS{
		"no portmapper":           {refuse: rpc.PmapPort},
		"silent portmapper":       {silent: rpc.PmapPort},
		"nothing registered":      {port0: true},
		"no mount daemon":         {refuse: bootMountPort},
		"silent mount daemon":     {silent: bootMountPort},
		"no NFS":                  {refuse: bootNFSPort},
		"file system not mounted": {mount: nfs.MNT3ErrNoEnt},
		"exports not loaded":      {mount: nfs.MNT3ErrAcces},
		"mount daemon failed":     {mount: nfs.MNT3ErrServerFault},
		"client not known":        {deed: nfs3test.Deny},
		"patience asked for":      {deed: nfs3test.Jukebox},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, _ := fakeSourceOf(t, 50)
				b.boot = 30 * time.Second
				s, dial := b.serve(t)
				o := nfsOptions(t, s)
				o.To, o.Dial, o.Patience = []string{"nfs://h" + nfs3test.Export + "/" + defaultRoot}, dial, time.Minute
				res, err := Send(t.Context(), src, o)
				if err != nil || res.State != protocol.StateComplete {
					t.Fatalf("%+v, %v, want it complete", res, err)
				}
				if n := nfsCheck(t, s, mustPlan(t, src, o)); n == 0 || !b.started() {
					t.Errorf("%d pages, the server has started: %t", n, b.started())
				}
			})
		})
	}
}

// TestNFSRefusesForGood: what waiting cannot change ends the attempts at once.
func TestNFSRefusesForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, _ := fakeSourceOf(t, 50)
		b := &bootingNFS{mount: nfs.MNT3ErrNotDir, boot: time.Hour}
		s, dial := b.serve(t)
		o := nfsOptions(t, s)
		o.To, o.Dial, o.Patience = []string{"nfs://h" + nfs3test.Export}, dial, 10*time.Minute
		start := time.Now()
		if _, err := Send(t.Context(), src, o); err == nil || !strings.Contains(err.Error(), "not a directory") || time.Since(start) > time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestNFSNoExport: one line says that the export is wrong, and what to do. The next target is tried at once. The first one is tried
// again, but seldom.
func TestNFSNoExport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, _ := fakeSourceOf(t, 50)
		b := &bootingNFS{mount: nfs.MNT3ErrNoEnt, boot: time.Hour}
		s, dial := b.serve(t)
		o := nfsOptions(t, s)
		start, second := time.Now(), time.Duration(-1)
		o.To = []string{"nfs://h" + nfs3test.Export, "tls://second:1"}
		o.Patience = 5 * time.Minute
		o.Dial = func(ctx context.Context, target string) (net.Conn, error) {
			if target == o.To[0] {
				return dial(ctx, target)
			}
			if second < 0 {
				second = time.Since(start)
			}
			return nil, &handshakeError{errors.New("it refuses, too")}
		}
		var tries []string
		o.Log = func(format string, args ...any) {
			if line := fmt.Sprintf(format, args...); strings.HasPrefix(line, o.To[0]+": mount refused") {
				tries = append(tries, line)
			}
		}
		_, err := Send(t.Context(), src, o)
		const told = "the server exports neither " + nfs3test.Export + " nor a directory above it; 'showmount -e h' lists the exports"
		if err == nil || !strings.Contains(err.Error(), told) || len(tries) == 0 || !strings.Contains(tries[0], told) {
			t.Errorf("%v, and before that %q", err, tries)
		}
		if second < 0 || second > time.Second {
			t.Errorf("the next target was tried after %v", second)
		}
		if took := time.Since(start); len(tries) < 4 || len(tries) > 12 || took < o.Patience {
			t.Errorf("%d tries in %v:\n%s", len(tries), took, strings.Join(tries, "\n"))
		}
	})
}
