package e2e

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/triage/cage"
)

// TestCage makes the report of a real panic in the cage, with a tenth of the limits: it is the report that is made without one.
func TestCage(t *testing.T) {
	t.Parallel()
	c, err := lab.CaptureELF(t.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", Kexec: "c"})
	if err != nil {
		t.Fatal(err)
	}
	dir := judgesServe(t).send(t, c.ELF, "31")
	limits := cage.DefaultLimits
	limits.CPU /= 10
	limits.Memory /= 3
	limits.Disk /= 10
	limits.Output /= 10
	program, err := filepath.Abs(judgesBin + "corehaul")
	if err != nil {
		t.Fatal(err)
	}
	got, err := cage.New(program, limits, slog.Default()).Dump(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Unread) > 0 {
		t.Errorf("unread: %q", got.Unread)
	}
	if diff := cmp.Diff(triageReport(t, dir), got); diff != "" {
		t.Errorf("without the cage -, in it +:\n%s", diff)
	}
}
