package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/triage"
)

// TestTriageOfEssential makes a report of a dump that ends behind the tiers "log" and "kernel": it is that of the whole dump.
func TestTriageOfEssential(t *testing.T) {
	t.Parallel()
	for _, s := range []lab.Scenario{{Kernel: "6.1"}, {Kernel: "6.12", CPU: "max", Busy: true, MemMiB: 1536}, {Kernel: "6.12-arm64", CPU: "max"}} {
		t.Run(s.Name(), func(t *testing.T) {
			c, err := lab.CaptureELF(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(t.TempDir(), "serve.toml")
			if err := os.WriteFile(config, []byte("[[rule]]\nthen = \"essential\"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			store := judgesServe(t, "--config", config)
			judgesRun(t, 3, "corehaul-send", "send", "--to", store.target, "--identity", store.identity, "--level", "1", c.ELF)
			part := triageReport(t, filepath.Join(store.dir(t), "vmcore"))
			whole := triageReport(t, c.ELF)
			if len(whole.Backtraces) == 0 || len(whole.Modules) == 0 || !slices.Equal(part.Unread, whole.Unread) {
				t.Errorf("unread: %q, of the whole dump %q", part.Unread, whole.Unread)
			}
			got, want := triageText(t, part), triageText(t, whole)
			if got != want {
				t.Errorf("got\n%s\nof the whole dump\n%s", got, want)
			}
		})
	}
}

// triageReport returns the report of a file.
func triageReport(t *testing.T, path string) *triage.Report {
	t.Helper()
	out, _ := judgesRun(t, 0, "corehaul", "report", "--json", path)
	r := new(triage.Report)
	if err := json.Unmarshal([]byte(out), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func triageText(t *testing.T, r *triage.Report) string {
	t.Helper()
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
