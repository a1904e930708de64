package initrd

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

// packWith packs an image with programs of the site: files with their text. In the text, DIR is their directory, which it returns
// too.
func packWith(t *testing.T, files map[string]string, programs ...string) (records map[string]cpio.Record, dir string, err error) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		write(t, filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)))
	}
	var list []string
	for _, name := range programs {
		list = append(list, fmt.Sprintf("%q", filepath.Join(dir, name)))
	}
	half := len(list) / 2
	o := testOptions(t, goodConfig+fmt.Sprintf("[programs]\npre = [%s]\npost = [%s]\n", strings.Join(list[:half], ","), strings.Join(list[half:], ",")))
	o.Compression = "none"
	var b bytes.Buffer
	if _, err := Pack(&b, o); err != nil {
		return nil, dir, err
	}
	return readArchive(t, &b), dir, nil
}

func TestPrograms(t *testing.T) {
	static := string(tinyELF(machineX86, false, "program"))
	got, dir, err := packWith(t, map[string]string{"a": static, "b": "#!DIR/a sh\nreboot\n"}, "a", "b", "a")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"programs" + dir + "/a": static, "programs" + dir + "/b": "#!" + dir + "/a sh\nreboot\n", dir[1:] + "/a": static,
	} {
		r, ok := got[name]
		if !ok || contents(t, r) != want || r.Mode != cpio.S_IFREG|0o755 {
			t.Errorf("%s: packed: %t, mode %o", name, ok, r.Mode)
		}
	}
}

func TestProgramErrors(t *testing.T) {
	dynamic := string(tinyELF(machineX86, true, ""))
	for _, tc := range []struct{ name, text, has string }{
		{"dynamic", dynamic, "linked dynamically"},
		{"another machine", string(tinyELF(machineArm, false, "")), "but init is for EM_X86_64"},
		{"text", "reboot\n", "neither a program nor a script"},
		{"a script without interpreter", "#! \nreboot\n", "names no interpreter"},
		{"a relative interpreter", "#!sh\n", "names no interpreter"},
		{"an interpreter that is gone", "#!DIR/none\n", "none: no such file"},
		{"an interpreter that is a script", "#!DIR/it\n", "neither a program nor a script"},
		{"a dynamic interpreter", "#!DIR/dynamic\n", "linked dynamically"},
	} {
		_, _, err := packWith(t, map[string]string{"it": tc.text, "dynamic": dynamic}, "it")
		if err == nil || !strings.Contains(err.Error(), tc.has) || !strings.Contains(err.Error(), "send.toml: programs: ") {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.has)
		}
	}
	if _, _, err := packWith(t, nil, "gone"); err == nil || !strings.Contains(err.Error(), "gone: no such file") {
		t.Errorf("got %v", err)
	}
}
