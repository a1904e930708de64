package debuginfo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLocal(t *testing.T) {
	t.Parallel()
	hex := someID.String()
	module := Want{BuildID: someID, Release: some.Release, Module: "snd_hda_intel"}
	for path, w := range map[string]Want{
		".build-id/ab/" + hex[2:] + ".debug":       some,
		"boot/vmlinux-6.1.0-test":                  some,
		"lib/modules/6.1.0-test/vmlinux":           some,
		"usr/lib/modules/6.1.0-test/vmlinux.debug": some,
		"vmlinux": some,
		"lib/modules/6.1.0-test/kernel/sound/snd-hda-intel.ko.debug": module,
		"lib/modules/6.1.0-test/kernel/sound/snd-hda-intel.ko":       module,
		"snd-hda-intel.ko": module,
	} {
		dir := t.TempDir()
		put(t, filepath.Join(dir, path), fileWith(someID, 100))
		f := &Finder{Dirs: []string{filepath.Join(dir, "no"), dir}}
		file, err := f.Find(t.Context(), w)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if file.Name() != filepath.Join(dir, path) || file.Downloaded {
			t.Errorf("got %s, want %s", file.Name(), path)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestOtherBuild: a file of another build is named and not taken, and a release of a hostile dump leads nowhere.
func TestOtherBuild(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "boot/vmlinux-6.1.0-test"), fileWith(bytes.Repeat([]byte{9}, 20), 100))
	f := &Finder{Dirs: []string{dir}}
	if why := mustFail(t, f); !strings.Contains(why, "boot/vmlinux-6.1.0-test: it has the build id 0909") {
		t.Errorf("got %q", why)
	}
	put(t, filepath.Join(dir, "x"), fileWith(someID, 100))
	for _, release := range []string{"../../x", "..", "", "a/b", strings.Repeat("x", 300)} {
		if _, err := f.Find(t.Context(), Want{BuildID: someID, Release: release}); err == nil {
			t.Errorf("release %q leads to a file", release)
		}
	}
}
