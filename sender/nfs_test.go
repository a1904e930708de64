package sender

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vmware/go-nfs-client/nfs"

	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender/nfsfs/nfs3/nfs3test"
)

// nfsOptions are those of a dump to an NFS server, into the directory where sftpDump looks.
func nfsOptions(t *testing.T, s *nfs3test.Server) Options {
	t.Helper()
	o := options(newFakeReceiver(t))
	o.To = []string{"nfs://h:1" + nfs3test.Export + "/" + defaultRoot + "?mountport=1"}
	o.Dial, o.Level = dialNFS("test 1", s.Dial), 0
	return o
}

// nfsCheck verifies the only dump on a server, by what is durable there, and returns how many pages it has.
func nfsCheck(t *testing.T, s *nfs3test.Server, plan *Plan) int {
	t.Helper()
	dir := t.TempDir()
	err := s.Walk(func(name string, data []byte) error {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return sftpPages(t, sftpDump(t, dir), plan)
}

// TestSendNFS sends to an NFS server, once more, and with another plan.
func TestSendNFS(t *testing.T) { synctest.Test(t, testSendNFS) }

func testSendNFS(t *testing.T) {
	src, _ := newFakeSource(t)
	s := nfs3test.New(t, nfs3test.Behaviour{ShortWrites: 100_000, ShortReads: 100_000, Fragment: 5000})
	o := nfsOptions(t, s)
	res, err := Send(t.Context(), src, o)
	if err != nil {
		t.Fatal(err)
	}
	plan := mustPlan(t, src, o)
	if n := nfsCheck(t, s, plan); res.State != protocol.StateComplete || uint64(n) != plan.Sum.Kept {
		t.Errorf("%s, %d pages, want %d", res.State, n, plan.Sum.Kept)
	}
	if again, err := Send(t.Context(), src, o); err != nil || !again.Known || again.ID != res.ID {
		t.Errorf("sent once more: %+v, %v, want it to be known", again, err)
	}
}

// nfsChanges are the procedures that change something, by their names.
var nfsChanges = map[string]uint32{
	"setattr": 2, "write": nfs.NFSProc3Write, "create": nfs.NFSProc3Create, "mkdir": nfs.NFSProc3Mkdir,
	"remove": nfs.NFSProc3Remove, "rename": 14, "commit": nfs.NFSProc3Commit,
}

// TestNFSInterrupted interrupts a dump at a call that changes something: the line breaks before or after it, or the server loses
// what is not committed. The dump is complete in the end, and all of it is durable.
func TestNFSInterrupted(t *testing.T) {
	deeds := map[string]nfs3test.Deed{
		"cut": nfs3test.Cut, "done and cut": nfs3test.DoAndCut, "crash": nfs3test.Crash, "amnesia": nfs3test.Amnesia,
	}
	calls := []int{1, 2, 4, 9}
	if race.Enabled {
		calls = calls[:1] // each takes a second or more
	}
	for deedName, deed := range deeds {
		for name, proc := range nfsChanges {
			for _, at := range calls {
				t.Run(fmt.Sprintf("%s %d %s", name, at, deedName), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { nfsInterrupt(t, proc, at, deed) })
				})
			}
		}
	}
}

// TestNFSJukebox: a server that asks for patience only delays. The clock is a real one here, because goroutines that wait for a
// mutex stop that of synctest.
func TestNFSJukebox(t *testing.T) {
	for name, proc := range nfsChanges {
		t.Run(name, func(t *testing.T) { nfsInterrupt(t, proc, 1, nfs3test.Jukebox) })
	}
}

func nfsInterrupt(t *testing.T, proc uint32, at int, deed nfs3test.Deed) {
	t.Helper()
	src, _ := fakeSourceOf(t, uint64(50/fewer)) // 4 MiB: there are many tests
	s := nfs3test.New(t, nfs3test.Behaviour{Hook: func(c nfs3test.Call) (nfs3test.Deed, uint32) {
		if c.Proc == proc && c.N == at {
			return deed, 0
		}
		return nfs3test.Do, 0
	}})
	o := nfsOptions(t, s)
	o.Patience = 10 * time.Minute
	res, err := Send(t.Context(), src, o)
	if err != nil || res.State != protocol.StateComplete {
		t.Fatalf("%+v, %v, want it complete", res, err)
	}
	plan := mustPlan(t, src, o)
	if n := nfsCheck(t, s, plan); uint64(n) != plan.Sum.Kept {
		t.Errorf("%d pages, want %d", n, plan.Sum.Kept)
	}
}

// TestNFSRefused: what an NFS server says is in the error, with what to do.
func TestNFSRefused(t *testing.T) {
	for _, tc := range []struct {
		name   string
		proc   uint32
		status uint32
		code   protocol.Code
		has    string
	}{
		{"root squash", nfs.NFSProc3Mkdir, nfs.NFS3ErrAcces, protocol.CodeStorage, "permission denied (NFS3ERR_ACCES): let the user write there"},
		{"read-only export", nfs.NFSProc3Mkdir, nfs.NFS3ErrROFS, protocol.CodeStorage, "read-only file system (NFS3ERR_ROFS): export the directory for writing"},
		{"full", nfs.NFSProc3Write, nfs.NFS3ErrNoSpc, protocol.CodeNoSpace, "no space left on device"},
		{"full when it is committed", nfs.NFSProc3Commit, nfs.NFS3ErrNoSpc, protocol.CodeNoSpace, "no space left on device"},
		{"quota", nfs.NFSProc3Write, nfs.NFS3ErrDQuot, protocol.CodeNoSpace, "disk quota exceeded"},
		{"stale", nfs.NFSProc3Write, nfs.NFS3ErrStale, protocol.CodeStorage, "the server exports another file system there now"},
		{"disk", nfs.NFSProc3Write, nfs.NFS3ErrIO, protocol.CodeStorage, "look at the server's disk"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, _ := newFakeSource(t)
				s := nfs3test.New(t, nfs3test.Behaviour{Hook: func(c nfs3test.Call) (nfs3test.Deed, uint32) {
					if c.Proc == tc.proc {
						return nfs3test.Do, tc.status
					}
					return nfs3test.Do, 0
				}})
				o := nfsOptions(t, s)
				o.Patience = 0
				_, err := Send(t.Context(), src, o)
				if !errors.Is(err, tc.code) || !strings.Contains(err.Error(), tc.has) ||
					!strings.Contains(err.Error(), nfs3test.Export+"/"+defaultRoot) {
					t.Errorf("got %v, want %s with %q and the path", err, tc.code, tc.has)
				}
			})
		})
	}
}
