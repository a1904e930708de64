package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// TestFinishedDump: what commands say of a dump that is complete, before its seal.
func TestFinishedDump(t *testing.T) {
	t.Parallel()
	m := dumpdirtest.NewMachine(71, 100, 16)
	dir := filepath.Join(t.TempDir(), "dump")
	w, err := dumpdir.Create(dumpdir.OS{}, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	if err := w.StoreLog(bytes.NewReader(m.Log)); err != nil {
		t.Fatal(err)
	}
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	for i := range m.Chunks {
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := w.Finish(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if out := corehaul(t, "show", dir); !strings.Contains(out, "arriving (complete; its SHA-256 is being made)") {
		t.Errorf("show: %s", out)
	}
	if out := corehaul(t, "show", "--json", dir); !strings.Contains(out, `"finished": true`) {
		t.Errorf("show --json: %s", out)
	}
	var out bytes.Buffer
	err = run(t.Context(), cli.Stdio{Out: &out, Err: &out}, []string{"verify", dir})
	if cli.CodeOf(err) != cli.ExitPartial || !strings.Contains(out.String(), "the dump is complete; its seal, with the SHA-256 of the file, is still to come") {
		t.Errorf("verify: %v\n%s", err, &out)
	}
}
