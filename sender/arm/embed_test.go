package arm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/sender/config"
)

// TestEmbed: an image of kdump gets what an image of Prepare has, and the words that its command line would have.
func TestEmbed(t *testing.T) {
	root := machine(t, map[string]string{"etc/send.toml": "to = [\"tls://h:1\"]\nidentity = \"id.pem\"\n[network]\ninterface = \"ens2\"\n"})
	o := Options{Root: root, Config: filepath.Join(root, "etc/send.toml"), Init: filepath.Join(root, "init")}
	dir := t.TempDir()
	p, err := Embed(t.Context(), o, dir, running)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Prepare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want.Close()
	if got, want := strings.Join(p.Record.Modules, " "), strings.Join(want.Record.Modules, " "); got != want {
		t.Errorf("modules %s, want %s", got, want)
	}
	words, err := os.ReadFile(filepath.Join(dir, config.WordsPath))
	if err != nil || string(words) != "corehaul.interface=52:54:00:00:00:02\n" {
		t.Errorf("words %q, %v", words, err)
	}
	if _, err := Embed(t.Context(), o, dir, "6.0-gone"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "kernel 6.0-gone") {
		t.Errorf("a kernel without modules: %v", err)
	}
}
