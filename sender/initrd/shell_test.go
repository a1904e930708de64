package initrd

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

func TestShell(t *testing.T) {
	static := tinyELF(machineX86, false, "a shell")
	file := filepath.Join(t.TempDir(), "sh")
	write(t, file, static)
	o := testOptions(t, "shell = \""+file+"\"\n"+goodConfig)
	o.Compression = "none"
	var b bytes.Buffer
	rep, err := Pack(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := readArchive(t, &b)["shell"]; !ok || contents(t, r) != string(static) || r.Mode != cpio.S_IFREG|0o755 {
		t.Errorf("packed: %t, mode %o", ok, r.Mode)
	}
	if want := []Program{{file, sha256.Sum256(static)}}; !slices.Equal(rep.Programs, want) {
		t.Errorf("reported %v, want %v", rep.Programs, want)
	}
}

func TestShellErrors(t *testing.T) {
	dir := t.TempDir()
	dynamic, static, gone := filepath.Join(dir, "dynamic"), filepath.Join(dir, "static"), filepath.Join(dir, "gone")
	write(t, dynamic, tinyELF(machineX86, true, ""))
	write(t, static, tinyELF(machineX86, false, ""))
	for file, has := range map[string]string{dynamic: "send.toml: shell: " + dynamic + " is linked dynamically", gone: "gone: no such file"} {
		_, err := Pack(&bytes.Buffer{}, testOptions(t, "shell = \""+file+"\"\n"+goodConfig))
		if err == nil || !strings.Contains(err.Error(), has) {
			t.Errorf("%s: got %v, want %q", file, err, has)
		}
	}
	p := &packer{report: &Report{}, machine: machineX86}
	if err := p.packFirstShell([]string{gone, dynamic, static}); err != nil {
		t.Errorf("with a good one: %v", err)
	}
	err := p.packFirstShell([]string{gone, dynamic})
	e, ok := errors.AsType[*NoShellError](err)
	if !ok || !strings.Contains(e.Error(), gone+", "+dynamic+"; "+dynamic+" is linked dynamically") || len(e.Hints()) == 0 {
		t.Errorf("got %v", err)
	}
}
