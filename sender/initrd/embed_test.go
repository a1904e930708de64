package initrd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/sender/config"
)

// kdumpTree is the tree of an image, with directories as distributions with a merged /usr have them.
func kdumpTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"usr/bin", "usr/lib/modules/6.1.0-test"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "lib"} {
		if err := os.Symlink("usr/"+d, filepath.Join(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestEmbed embeds twice, as when an image is made again in the same tree: what is there is what was embedded last.
func TestEmbed(t *testing.T) {
	dir, site := kdumpTree(t), t.TempDir()
	shell := filepath.Join(site, "sh")
	write(t, shell, tinyELF(machineX86, false, "another shell"))
	write(t, filepath.Join(site, "pre"), []byte("#!"+shell+"\n"))
	pre := config.ProgramPath(site + "/pre")
	write(t, filepath.Join(dir, shell), []byte("its own shell"))
	o := testOptions(t, goodConfig+"[programs]\npre = [\""+site+"/pre\"]\n")
	for range 2 {
		rep, err := Embed(dir, o, []string{"corehaul.vlan=7", `corehaul.routes="10.0.0.0/8 via 192.0.2.1"`})
		if err != nil {
			t.Fatal(err)
		}
		if len(rep.Modules) != 7 || rep.Unpacked == 0 {
			t.Errorf("got %+v", rep)
		}
		write(t, filepath.Join(dir, config.IdentityPath), []byte("an old key"))
		write(t, filepath.Join(dir, pre), []byte("an old program"))
	}
	if _, err := Embed(dir, o, []string{"corehaul.vlan=8"}); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{
		"usr/bin/corehaul-send": 0o755, config.Path: 0o600, config.IdentityPath: 0o600, config.ModulesPath: 0o644, config.WordsPath: 0o600,
	} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	for name, want := range map[string]string{config.IdentityPath: "secret", config.WordsPath: "corehaul.vlan=8\n", shell: "its own shell", pre: "#!" + shell + "\n"} {
		if got := read(t, filepath.Join(dir, name)); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for line := range strings.Lines(read(t, filepath.Join(dir, config.ModulesPath))) {
		file, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(file, "/usr/lib/corehaul/6.1.0-test/") || !strings.HasPrefix(read(t, filepath.Join(dir, file)), "\x7fELF") {
			t.Errorf("module %s", file)
		}
	}
	for _, name := range []string{"init", "dev", "usr/lib/modules/6.1.0-test/kernel"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
}

// TestEmbedBrokenOff: without all that it needs, the program is not in the tree, and nothing starts it there.
func TestEmbedBrokenOff(t *testing.T) {
	dir := kdumpTree(t)
	write(t, filepath.Join(dir, "usr/lib/corehaul"), []byte("no directory")) // whose place is behind that of the program
	if _, err := Embed(dir, testOptions(t, goodConfig), nil); err == nil {
		t.Fatal("a file in the place of a directory was no error")
	}
	if _, err := os.Lstat(filepath.Join(dir, "usr/bin/corehaul-send")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the program is in the tree: %v", err)
	}
}

// TestEmbedOutside: a tree with a link out of it is refused, and what the link leads to stays as it is.
func TestEmbedOutside(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "etc")); err != nil {
		t.Fatal(err)
	}
	if _, err := Embed(dir, testOptions(t, goodConfig), nil); err == nil || !strings.Contains(err.Error(), "the tree of the image, "+dir) {
		t.Errorf("got %v", err)
	}
	if list, err := os.ReadDir(outside); err != nil || len(list) > 0 {
		t.Errorf("outside there is %v, %v", list, err)
	}
	if _, err := Embed(filepath.Join(dir, "nowhere"), testOptions(t, goodConfig), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a tree: %v", err)
	}
}
