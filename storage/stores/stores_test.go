package stores_test

import (
	"errors"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/stores"
)

// TestOpen opens one store by every name that it has.
func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a:b%41 c")
	t.Chdir(filepath.Dir(dir))
	escaped := (&url.URL{Path: dir}).EscapedPath()
	if _, err := stores.Open(t.Context(), "file:"+escaped, storage.OpenOptions{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before there is one: %v", err)
	}
	for _, where := range []string{dir, filepath.Base(dir), "./" + filepath.Base(dir), "file:" + escaped, "file://" + escaped, "FILE://localhost" + escaped} {
		got, err := stores.Dir(where)
		if abs, _ := filepath.Abs(got); err != nil || abs != dir {
			t.Errorf("%s: directory %q, %v", where, got, err)
		}
		s, err := stores.Open(t.Context(), where, storage.OpenOptions{})
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if names, err := filepath.Glob("*"); err != nil || len(names) != 1 {
		t.Errorf("made %v, %v", names, err)
	}
}

// TestNoStore names what is wrong with a URL, and makes nothing.
func TestNoStore(t *testing.T) {
	t.Chdir(t.TempDir())
	for where, want := range map[string]string{
		"s3://bucket/dumps":      `scheme "s3"; the schemes are: file`,
		"gopher://x":             `scheme "gopher"`,
		"file:relative":          "file:relative names no local directory",
		"file://elsewhere/dumps": "names no local directory",
		"file:///dumps?x=1":      "names no local directory",
		"file:///dumps#x":        "names no local directory",
		"file:///dumps%zz":       "is neither a path nor a URL such as file:///",
	} {
		if s, err := stores.Open(t.Context(), where, storage.OpenOptions{}); s != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", where, err)
		}
		if _, err := stores.Dir(where); err == nil {
			t.Errorf("%s has a directory", where)
		}
	}
	if names, err := filepath.Glob("*"); err != nil || len(names) != 0 {
		t.Errorf("made %v, %v", names, err)
	}
}
