package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// TestSameCrash sends two NULL dereferences of one host, one in a driver and one in the page cache. Both come with their pages, because only
// the numbers of their panic lines differ, not their places. Of the driver's second one, a rule takes the log only. prune keeps an example of each.
func TestSameCrash(t *testing.T) {
	t.Parallel()
	var dumps []string
	for _, kind := range []string{"null-read", "page-cache"} {
		c, err := lab.Panic(t.Context(), lab.Scenario{Kernel: "6.1", Crash: kind})
		if err != nil {
			t.Fatal(err)
		}
		dumps = append(dumps, c.Dump)
	}
	config := filepath.Join(t.TempDir(), "serve.toml")
	if err := os.WriteFile(config, []byte("[[rule]]\nsame_crash = 1\nthen = \"log\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := judgesServe(t, "--config", config)
	send := func(code int, dump string) string {
		t.Helper()
		out, errOut := judgesRun(t, code, "corehaul-send", "send", "--to", s.target, "--identity", s.identity, dump)
		return out + errOut
	}
	send(0, dumps[0])
	send(0, dumps[1])
	if said := send(4, rulesOtherBoot(t, dumps[0])); !strings.Contains(said, "the same crash is stored 1 times: BUG: kernel NULL pointer") {
		t.Errorf("the second one of a crash is told %s", said)
	}
	serveWait(t, "the reports", func() bool {
		out, _ := judgesRun(t, 0, "corehaul", "ls", "--json", "--data", s.data)
		return strings.Count(out, `"report_of": "dump"`) == 3
	})
	wantStates := func(want ...string) {
		t.Helper()
		lines, states := map[string]bool{}, []string{}
		for _, d := range sftpList(t, s.data) {
			lines[rulesNumber.ReplaceAllString(d.Manifest.PanicLine, "NUM")] = true
			states = append(states, d.Manifest.State)
		}
		if slices.Sort(states); !slices.Equal(states, want) || len(lines) != 1 {
			t.Errorf("dumps are %q, want %q, of one panic line: %v", states, want, lines)
		}
	}
	wantStates("complete", "complete", "log-only")
	judgesRun(t, 0, "corehaul", "prune", "--max-per-crash", "1", "--data", s.data)
	wantStates("complete", "complete")
	out, _ := judgesRun(t, 0, "corehaul", "groups", "--json", "--data", s.data)
	for _, function := range []string{"null_read", "force_page_cache_ra"} {
		if !strings.Contains(out, `dereference in `+function+`"`) {
			t.Errorf("no crash in %s is left:\n%s", function, out)
		}
	}
}

var rulesNumber = regexp.MustCompile(`[0-9]+`)

// rulesOtherBoot copies a dump and changes the pid in the registers of its first CPU, so that it counts as another one.
func rulesOtherBoot(t *testing.T, dump string) string {
	t.Helper()
	b, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	const pid = 8 + 32 // of struct elf_prstatus behind the name of the note
	at := bytes.Index(b, []byte("CORE\x00\x00\x00\x00"))
	if at < 0 {
		t.Fatal("no note of a CPU")
	}
	b[at+pid] ^= 1
	path := filepath.Join(t.TempDir(), fmt.Sprintf("%s.again", filepath.Base(dump)))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
