package receiver

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/storage"
)

func TestWireErrors(t *testing.T) {
	path := func(err error) error { return &os.PathError{Op: "write", Path: "/srv/secret", Err: err} }
	for _, tc := range []struct {
		name string
		err  error
		want protocol.Code
		wait bool
	}{
		{"full disk", &intake.ChunkError{Seq: 7, Err: path(syscall.ENOSPC)}, protocol.CodeNoSpace, true},
		{"quota", path(syscall.EDQUOT), protocol.CodeNoSpace, true},
		{"broken disk", path(syscall.EIO), protocol.CodeStorage, true},
		{"damage", &dumpdir.DamageError{File: "chunks", Text: "torn"}, protocol.CodeStorage, true},
		{"other process", fmt.Errorf("x: %w", storage.ErrBusy), protocol.CodeBusy, true},
		{"taken over", dumpdir.ErrRevoked, protocol.CodeSuperseded, false},
		{"other plan", dumpdir.ErrHavePlan, protocol.CodePlanMismatch, false},
		{"page twice", &intake.ChunkError{Seq: 7, Err: dumpdir.ErrHavePage}, protocol.CodeDuplicate, false},
		{"slow", os.ErrDeadlineExceeded, protocol.CodeTimeout, false},
		{"has a code", fmt.Errorf("x: %w", errShutdown), protocol.CodeShuttingDown, false},
	} {
		got := wireError(tc.err)
		if got.Code != tc.want || (got.RetryAfter > 0) != tc.wait {
			t.Errorf("%s: got %s, come back after %v; want %s", tc.name, got.Code, got.RetryAfter, tc.want)
		}
		if strings.Contains(got.Text, "/srv") {
			t.Errorf("%s: the peer is told %q", tc.name, got.Text)
		}
	}
	if got := wireError(&intake.ChunkError{Seq: 7, Err: dumpdir.ErrHavePage}).Text; !strings.HasPrefix(got, "chunk 7: ") {
		t.Errorf("the peer is told %q, without the chunk", got)
	}
}
