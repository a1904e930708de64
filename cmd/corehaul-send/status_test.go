package main

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/sender/arm/reservation"
)

// TestNeedsRoot: root's rights are named where they are the cause only.
func TestNeedsRoot(t *testing.T) {
	const root = "run it as root: put sudo before it"
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("open /run/corehaul-send/armed.json: %w", fs.ErrPermission), true},
		{reservation.ErrNoKexec, false},
		{errors.New("/sys/kernel/kexec_crash_size has \"x\", which is no number"), false},
	} {
		hints := cli.Hints(needsRoot(tc.err))
		if got := len(hints) > 0 && hints[0] == root; got != tc.want {
			t.Errorf("%v: hints %q", tc.err, hints)
		}
	}
}
