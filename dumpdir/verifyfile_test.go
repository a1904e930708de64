package dumpdir_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestVerifyLackingFile verifies files that do not hold all that they should: they are partial, with the pages that are
// there and why, and what is missing is no damage.
func TestVerifyLackingFile(t *testing.T) {
	for _, tc := range vmcoretest.LackingFiles(t) {
		t.Run(tc.Name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "vmcore")
			if err := os.WriteFile(name, tc.Bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			rep, err := dumpdir.VerifyFile(t.Context(), name, dumpdir.VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if rep.State != dumpdir.StatePartial || !rep.OK() || rep.Progress.Missing() != tc.Missing || rep.Progress.Planned == 0 {
				t.Errorf("%+v, want %d missing", rep, tc.Missing)
			}
			why, _, _ := strings.Cut(tc.Reason, "; ")
			if !strings.Contains(strings.Join(rep.Warnings, "\n"), why) {
				t.Errorf("%q does not say %q", rep.Warnings, why)
			}
		})
	}
}
