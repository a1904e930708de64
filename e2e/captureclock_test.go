package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// TestWrongClock crashes machines whose battery is empty, or whose clock was set by nobody:
// their capture kernels live decades from now. The dump's time is that of the system
// kernel, whose clock was right.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	for year, clock := range map[string]string{"1970": "1970-01-01T00:00:00", "2100": "2100-06-01T00:00:00"} {
		t.Run(year, func(t *testing.T) {
			t.Parallel()
			s := judgesServe(t)
			initrd := s.captureImage(t, s.address(t), "6.1", "")
			ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
			defer cancel()
			start := time.Now()
			// The kernel's lines show what its clock says.
			run, err := lab.RunSender(ctx, lab.Scenario{Kernel: "6.1"}, initrd, lab.SenderOptions{Clock: clock, CaptureAppend: "loglevel=7"})
			if err != nil {
				t.Fatal(err)
			}
			said := captureSaid(run)
			t.Logf("the capture kernel said\n%s", said)
			_, clock, _ := strings.Cut(run.CaptureConsole(), "setting system clock to ")
			if clock, _, _ = strings.Cut(clock, " "); !strings.HasPrefix(clock, year+"-") {
				t.Errorf("the capture kernel's clock says %q, want %s", clock, year)
			}
			captureCheckConsole(t, said)
			s.checkCaptured(t)
			d := s.one(t)
			for name, at := range map[string]time.Time{"crash": d.Manifest.CrashTime, "start": d.Manifest.StartTime, "end": d.Manifest.EndTime} {
				if at.Before(start.Add(-time.Minute)) || at.After(time.Now().Add(time.Minute)) {
					t.Errorf("%s time %v, want one of this run", name, at)
				}
			}
			if want := d.Manifest.CrashTime.UTC().Format("2006"); !strings.HasPrefix(filepath.Base(d.Path), want) {
				t.Errorf("it lies in %s, want a name that begins with %s", d.Path, want)
			}
		})
	}
}
