package e2e

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// TestWrongClock crashes machines whose battery is empty, or whose clock was set by nobody:
// their capture kernels live decades from now. The dump's time is that of the system
// kernel, whose clock was right. 2069 is as late as it gets: Linux takes the two digits of
// the year for 1970 to 2069 while the century is 20, and QEMU goes no farther from now than
// 2^31 s. Package tls tests later years.
func TestWrongClock(t *testing.T) {
	for year, clock := range map[string]string{"1970": "1970-01-01T00:00:00", "2069": "2069-06-01T00:00:00"} {
		t.Run(year, func(t *testing.T) {
			dir, port := watchdogReceiver(t)
			initrd := captureInitrd(t, dir, port)
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
			data := filepath.Join(dir, "data")
			captureCheckDump(t, data)
			var list struct {
				Dumps []struct {
					Path     string
					Manifest struct {
						Crash time.Time `json:"crash_time"`
						Start time.Time `json:"start_time"`
						End   time.Time `json:"end_time"`
					}
				}
			}
			if err := json.Unmarshal([]byte(captureCommand(t, captureReceiver, "ls", "--data", data, "--json")), &list); err != nil {
				t.Fatal(err)
			}
			d := list.Dumps[0]
			for name, at := range map[string]time.Time{"crash": d.Manifest.Crash, "start": d.Manifest.Start, "end": d.Manifest.End} {
				if at.Before(start.Add(-time.Minute)) || at.After(time.Now().Add(time.Minute)) {
					t.Errorf("%s time %v, want one of this run", name, at)
				}
			}
			if want := d.Manifest.Crash.UTC().Format("2006"); !strings.HasPrefix(filepath.Base(d.Path), want) {
				t.Errorf("it lies in %s, want a name that begins with %s", d.Path, want)
			}
		})
	}
}
