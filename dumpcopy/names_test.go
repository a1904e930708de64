package dumpcopy

import (
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
)

// TestKeptNames gives files of clients, whatever their names, one that a dump can keep.
func TestKeptNames(t *testing.T) {
	for name, want := range map[string]string{
		"kexec-dmesg.log": "kexec-dmesg.log", "opalcore-incomplete": "opalcore", "a.tmp": "a", "a.tmp.tmp": "a", ".tmp": "tmp", "..a": "a", "...": "file", `a\b`: "a_b",
		strings.Repeat("n", 196) + ".tmp.tar": strings.Repeat("n", 196), strings.Repeat("n", 250): strings.Repeat("n", 200),
	} {
		if got := KeptName(name); got != want || !dumpdir.ValidKeptName(got) {
			t.Errorf("%q is kept as %q, want %q", name, got, want)
		}
	}
}
