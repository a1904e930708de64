package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// judgesBin is where `make build` leaves the programs.
const judgesBin = "../bin/"

// judgesRun runs one of our programs, checks its exit code and returns both of its outputs.
func judgesRun(tb testing.TB, code int, name string, args ...string) (stdout, stderr string) {
	tb.Helper()
	var out, errOut strings.Builder
	cmd := exec.CommandContext(tb.Context(), judgesBin+name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		tb.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		tb.Fatalf("%s %v: exit code %d, want %d\n%s%s", name, args, got, code, out.String(), errOut.String())
	}
	return out.String(), errOut.String()
}

// send sends a dump and returns the directory that it is stored in, sealed.
func (s *judgesStore) send(tb testing.TB, elf, level string, flags ...string) string {
	tb.Helper()
	args := append([]string{"send", "--to", s.target, "--identity", s.identity, "--level", level}, flags...)
	judgesRun(tb, 0, "corehaul-send", append(args, elf)...)
	dir := s.dir(tb)
	judgesSealed(tb, dir)
	return dir
}

// judgesSealed waits until a dump is sealed: the sender of a long one does not wait for that. A seal writes SHA256SUMS last.
func judgesSealed(tb testing.TB, dir string) {
	tb.Helper()
	serveWait(tb, "the seal", func() bool {
		_, err := os.Stat(filepath.Join(dir, "SHA256SUMS"))
		return err == nil
	})
}

// dir finds the one dump in a store.
func (s *judgesStore) dir(tb testing.TB) string {
	tb.Helper()
	var dirs []string
	err := filepath.WalkDir(s.data, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "manifest.json" {
			dirs = append(dirs, filepath.Dir(path))
		}
		return err
	})
	if err != nil || len(dirs) != 1 {
		tb.Fatalf("dumps in the store: %q, %v; want one", dirs, err)
	}
	return dirs[0]
}

// judgesManifest is what the tests look at in a manifest.json.
type judgesManifest struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

func judgesReadManifest(tb testing.TB, dir string) (m judgesManifest) {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// judgesFileLine is the line of crash that names the file, which is all that may differ.
var judgesFileLine = regexp.MustCompile(`(?m)^ *DUMPFILE: .*\n`)

// judgesCrash asks crash and drops what only names the file.
func judgesCrash(t *testing.T, vmlinux, dump string, commands ...string) map[string]string {
	t.Helper()
	got, err := lab.CrashEach(t.Context(), vmlinux, dump, commands...)
	if err != nil {
		t.Fatalf("crash on %s: %v", dump, err)
	}
	return judgesWithoutFile(got)
}

// judgesCrashOriginal is judgesCrash for the machine's own file.
func judgesCrashOriginal(t *testing.T, c *lab.Captured, commands ...string) map[string]string {
	t.Helper()
	all, err := c.Crash(t.Context())
	if err != nil {
		t.Fatalf("crash on %s: %v", c.ELF, err)
	}
	got := map[string]string{}
	for _, command := range commands {
		text, ok := all[command]
		if !ok {
			t.Fatalf("the lab does not ask crash %q", command)
		}
		got[command] = text
	}
	return judgesWithoutFile(got)
}

func judgesWithoutFile(answers map[string]string) map[string]string {
	for c, text := range answers {
		answers[c] = judgesFileLine.ReplaceAllString(text, "")
	}
	return answers
}

// judgesSame compares two answers of crash and shows where they part.
func judgesSame(t *testing.T, got, want map[string]string) {
	t.Helper()
	for c := range want {
		if strings.TrimSpace(want[c]) == "" {
			t.Errorf("crash %q says nothing of the original: the comparison is empty", c)
		}
		g, w := strings.Split(got[c], "\n"), strings.Split(want[c], "\n")
		for i := range max(len(g), len(w)) {
			if i >= len(g) || i >= len(w) || g[i] != w[i] {
				t.Errorf("crash %q differs at line %d (%d lines, want %d):\n got %q\nwant %q",
					c, i+1, len(g), len(w), g[min(i, len(g)-1)], w[min(i, len(w)-1)])
				break
			}
		}
	}
}

// judgesCapture returns a crashed machine and the vmlinux of its kernel.
func judgesCapture(t *testing.T, kernel string) (*lab.Captured, *lab.Kernel, string) {
	t.Helper()
	c, err := lab.CaptureELF(t.Context(), lab.Scenario{Kernel: kernel, CPU: "qemu64", Kexec: "c"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := lab.GetKernel(t.Context(), kernel)
	if err != nil {
		t.Fatal(err)
	}
	vmlinux, err := k.Vmlinux(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c, k, vmlinux
}

// TestJudges sends dumps through both programs and asks those who read dumps for a living
// whether what is stored is as good as the original.
func TestJudges(t *testing.T) {
	t.Parallel()
	commands := []string{"sys", "log", "bt -a", "ps", "mod", "kmem -i", "foreach bt"}
	for _, name := range []string{"5.10", "6.1", "6.12"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, k, vmlinux := judgesCapture(t, name)
			want := judgesCrashOriginal(t, c, commands...)
			for _, level := range []string{"31", "1"} {
				t.Run("level "+level, func(t *testing.T) {
					s := judgesServe(t)
					dir := s.send(t, c.ELF, level)
					judgesSame(t, judgesCrash(t, vmlinux, filepath.Join(dir, "vmcore"), commands...), want)
					s.checkReadBack(t, k, dir, want["log"])
					s.checkFlipped(t, dir)
				})
			}
		})
	}
}

// checkReadBack asks everybody but crash.
func (s *judgesStore) checkReadBack(t *testing.T, k *lab.Kernel, dir, crashLog string) {
	t.Helper()
	sums := exec.CommandContext(t.Context(), "sha256sum", "-c", "--strict", "SHA256SUMS")
	sums.Dir = dir
	if out, err := sums.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	m := judgesReadManifest(t, dir)
	if m.State != "complete" {
		t.Errorf("state %q, want complete", m.State)
	}
	judgesRun(t, 0, "corehaul", "verify", "--data", s.data, m.ID)
	log, _ := judgesRun(t, 0, "corehaul", "log", "--data", s.data, m.ID)
	if strings.TrimSpace(log) != strings.TrimSpace(crashLog) {
		judgesSame(t, map[string]string{"log": log}, map[string]string{"log": crashLog})
	}
	stored := judgesPages(t, filepath.Join(dir, "vmcore"))
	s.checkExports(t, k, m.ID, stored)
}

func judgesPages(t *testing.T, dump string) lab.Pages {
	t.Helper()
	p, err := lab.ReadAllPages(t.Context(), dump)
	if err != nil || p.Count == 0 {
		t.Fatalf("libkdumpfile read %v of %s: %v", p, dump, err)
	}
	return *p
}

// checkExports has makedumpfile filter an exported dump once more, which must keep what
// it would have kept itself.
func (s *judgesStore) checkExports(t *testing.T, k *lab.Kernel, id string, want lab.Pages) {
	t.Helper()
	dir := t.TempDir()
	zlib, again := filepath.Join(dir, "zlib"), filepath.Join(dir, "again")
	judgesRun(t, 0, "corehaul", "export", "--data", s.data, "--format", "kdump", "--compress", "zlib", "-o", zlib, id)
	if got := judgesPages(t, zlib); got != want {
		t.Errorf("exported pages: %+v, want %+v", got, want)
	}
	if out, err := k.Makedumpfile(t.Context(), "-c", "-d", "31", zlib, again); err != nil {
		t.Fatalf("makedumpfile: %v\n%s", err, out)
	}
	if got := judgesPages(t, again); got.Count > want.Count {
		t.Errorf("makedumpfile made %d pages out of %d", got.Count, want.Count)
	}
}

// TestMakedumpfileFiltersStored has makedumpfile filter the very file that is stored, once more and further. That it
// can read: Debian builds it with zstd.
func TestMakedumpfileFiltersStored(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"5.10", "6.1", "6.12"} {
		t.Run(name, func(t *testing.T) {
			c, err := lab.CaptureELF(t.Context(), lab.Scenario{Kernel: name, CPU: "qemu64", Kexec: "c"})
			if err != nil {
				t.Fatal(err)
			}
			k, err := lab.GetKernel(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			stored := filepath.Join(judgesServe(t).send(t, c.ELF, "1", "--encoding", "zstd"), "vmcore")
			dir := t.TempDir()
			got, want := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
			for out, in := range map[string]string{got: stored, want: c.ELF} {
				// With its bitmaps in a file it keeps the frame that RAM ends in, which it drops when it counts in cycles.
				if text, err := k.Makedumpfile(t.Context(), "--work-dir", dir, "-c", "-d", "31", in, out); err != nil {
					t.Fatalf("makedumpfile on %s: %v\n%s", in, err, text)
				}
			}
			if g, w := judgesPages(t, got), judgesPages(t, want); g != w {
				t.Errorf("filtered from the stored file: %+v, from the original: %+v", g, w)
			}
		})
	}
}

// judgesFinding is what verify has to say of one flipped bit in a page.
var judgesFinding = regexp.MustCompile(`(?s)pfn.*chunk|chunk.*pfn`)

// checkFlipped flips one bit of the last page of a stored dump, which verify must find.
func (s *judgesStore) checkFlipped(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "vmcore"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, end-20); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, end-20); err != nil {
		t.Fatal(err)
	}
	out, _ := judgesRun(t, 5, "corehaul", "verify", "--data", s.data, judgesReadManifest(t, dir).ID)
	if !judgesFinding.MatchString(out) || !strings.Contains(out, "offset") {
		t.Errorf("verify should name pfn, chunk and offset of the damage:\n%s", out)
	}
	t.Logf("%s", strings.TrimSpace(out))
}
