package local_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
)

// TestDumpInMisnamedDirectory moves a dump where no list has it. Lists and reindex say so; a directory without a dump is nobody's business.
func TestDumpInMisnamedDirectory(t *testing.T) {
	dir := t.TempDir()
	ref := receive(t, open(t, dir, storage.OpenOptions{}), 1)
	kept := receive(t, open(t, dir, storage.OpenOptions{}), 2)
	dumps := filepath.Join(dir, "dumps")
	for _, sub := range []string{"lost+found", "+odd"} {
		if err := os.Mkdir(filepath.Join(dumps, sub), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Base(wantListed(t, open(t, dir, storage.OpenOptions{}), 2)[1].Path)
	if err := os.Rename(filepath.Join(dumps, ref.Host, name), filepath.Join(dumps, "+odd", name)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, err := local.Open(t.Context(), dir, storage.OpenOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for range 2 {
		if list, err := s.List(t.Context(), storage.Filter{}); err != nil || len(list) != 1 || list[0].Ref != kept {
			t.Errorf("%+v, %v", list, err)
		}
	}
	if text := log.String(); strings.Count(text, "is not listed") != 1 || !strings.Contains(text, filepath.Join("+odd", name)) {
		t.Errorf("the log has\n%s", text)
	}
	if rep, err := s.Reindex(t.Context()); err != nil || rep.Dumps != 1 || !slices.Contains(rep.Ignored, filepath.Join("dumps", "+odd")) {
		t.Errorf("%+v, %v", rep, err)
	}
}
