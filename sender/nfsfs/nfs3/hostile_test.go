package nfs3

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/rpc"
	"github.com/vmware/go-nfs-client/nfs/xdr"
)

// accept serves calls on a connection until it ends. results returns what follows the head of the answer to the n-th call, nil for
// no answer.
func accept(far net.Conn, results func(n int) []byte) {
	for n := 1; ; n++ {
		record, err := readRecord(far)
		if err != nil {
			return
		}
		if b := results(n); b != nil && sendAnswer(far, record[:4], b) != nil {
			return
		}
	}
}

func sendAnswer(far net.Conn, xid, results []byte) error {
	answer := append(bytes.Clone(xid), 0, 0, 0, msgReply)
	answer = append(answer, make([]byte, 4*4)...) // accepted, no verifier, success
	answer = append(answer, results...)
	_, err := far.Write(append(binary.BigEndian.AppendUint32(nil, lastFragment|uint32(len(answer))), answer...))
	return err
}

// TestStuck: a call that is never answered ends the connection, even if all others are answered.
func TestStuck(t *testing.T) { synctest.Test(t, testStuck) }

func testStuck(t *testing.T) {
	near, far := net.Pipe()
	c := newConn(near, rpc.AuthNull, Patience)
	defer c.close()
	go accept(far, func(n int) []byte {
		if n == 1 {
			return nil
		}
		return []byte{}
	})
	start := time.Now()
	done := make(chan error, 1)
	go func() {
		_, err := c.call(1, 1, 1, uint32(0), nil)
		done <- err
	}()
	for {
		select {
		case err := <-done:
			if took := time.Since(start); !errors.Is(err, errStuck(stuckFactor*Patience)) || took != stuckFactor*Patience {
				t.Errorf("%v after %v", err, took)
			}
			return
		case <-time.After(Patience / 2):
			_, _ = c.call(1, 1, 1, uint32(0), nil) // answered, until the connection ends
		}
		if time.Since(start) > 2*stuckFactor*Patience {
			t.Fatal("the call still waits")
		}
	}
}

// TestUnasked: answers to no call are no sign of life.
func TestUnasked(t *testing.T) { synctest.Test(t, testUnasked) }

func testUnasked(t *testing.T) {
	near, far := net.Pipe()
	c := newConn(near, rpc.AuthNull, Patience)
	defer time.Sleep(Patience) // until the other side has seen the end
	defer c.close()
	go func() {
		_, _ = readRecord(far)
		for range 100 {
			if sendAnswer(far, []byte("none"), nil) != nil {
				return
			}
			time.Sleep(Patience / 4)
		}
	}()
	start := time.Now()
	_, err := c.call(1, 1, 1, uint32(0), nil)
	if took := time.Since(start); !errors.Is(err, errSilent(Patience)) || took != Patience {
		t.Errorf("%v after %v", err, took)
	}
}

// TestHungUp: a connection that the server closes in the middle of a read is not the end of the file.
func TestHungUp(t *testing.T) {
	near, far := net.Pipe()
	c := &Client{c: newConn(near, rpc.AuthNull, Patience), ReadLen: 16}
	defer c.Close()
	go func() {
		_, _ = readRecord(far)
		_ = far.Close()
	}()
	_, err := c.File(FH("f")).ReadAt(make([]byte, 10), 0)
	if _, lost := errors.AsType[*LostError](err); !lost || errors.Is(err, io.EOF) {
		t.Errorf("got %v, want a LostError that is no io.EOF", err)
	}
}

// TestEndlessDirectory: a directory that never ends, or has names without measure, is an error soon.
func TestEndlessDirectory(t *testing.T) {
	long := strings.Repeat("x", MaxTransfer)
	for name, tc := range map[string]struct {
		entry  string
		cookie func(n int) uint64
		calls  int // at most
	}{
		"one cookie":    {"name", func(int) uint64 { return 7 }, 2},
		"only dots":     {".", func(n int) uint64 { return uint64(n) }, maxDir / entryLen},
		"long names":    {long, func(n int) uint64 { return uint64(n) }, maxDir/MaxTransfer + 1},
		"cookies again": {"name", func(n int) uint64 { return uint64(n % 3) }, maxDir / entryLen},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			c := &Client{c: newConn(near, rpc.AuthNull, Patience)}
			defer c.Close()
			go accept(far, func(n int) []byte {
				if n > tc.calls {
					_ = far.Close()
					return nil
				}
				b := new(bytes.Buffer)
				const each = 1000 // entries in an answer with short names
				entries := max(1, each/len(tc.entry))
				for _, v := range []any{uint32(statusOK), nfs.PostOpAttr{}, uint64(0)} {
					_ = xdr.Write(b, v)
				}
				for range entries {
					for _, v := range []any{true, uint64(n), tc.entry, tc.cookie(n)} {
						_ = xdr.Write(b, v)
					}
				}
				for _, v := range []any{false, false} {
					_ = xdr.Write(b, v)
				}
				return b.Bytes()
			})
			_, err := c.ReadDir(FH("d"))
			if _, lost := errors.AsType[*LostError](err); err == nil || lost {
				t.Errorf("after %d calls: %v", tc.calls, err)
			}
		})
	}
}

// TestErrorTexts: what people read names no types or functions, and says what to do.
func TestErrorTexts(t *testing.T) {
	for _, tc := range []struct {
		err error
		has string
	}{
		{newDecoder([]byte{1}).read(new(uint64)), "cannot be decoded"},
		{&MountError{Dir: "/e", Status: nfs.MNT3ErrServerFault}, "SERVERFAULT): look at the server's log"},
		{&MountError{Dir: "/e", Status: nfs.MNT3ErrNotDir}, "not a directory (NFS3ERR_NOTDIR)"},
	} {
		if text := tc.err.Error(); !strings.Contains(text, tc.has) || strings.Contains(text, "xdr") {
			t.Errorf("got %q, want %q", text, tc.has)
		}
	}
}
