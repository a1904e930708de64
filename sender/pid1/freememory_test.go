package pid1

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// meminfo is /proc/meminfo with some MiB available of 100.
func meminfo(available int) string {
	return fmt.Sprintf("MemTotal:         102400 kB\nMemFree:             100 kB\nMemAvailable:   %8d kB\nHugePages_Total:       0\n", available<<10)
}

// TestLeastFreeMemory: the console tells the least that was seen, also that before the job, and not what lasted for less than the
// time between two looks.
func TestLeastFreeMemory(t *testing.T) {
	for _, tc := range []struct {
		name   string
		first  int // before the job, MiB
		during []int
		every  time.Duration
		want   string
	}{
		{"the job takes it", 80, []int{70, 30, 60}, 2 * time.Second, "least free memory 30.0 MiB of 100.0 MiB"},
		{"modules take it", 20, []int{70, 60}, 2 * time.Second, "least free memory 20.0 MiB of 100.0 MiB"},
		{"for a moment", 80, []int{90, 30, 90}, 300 * time.Millisecond, "least free memory 80.0 MiB of 100.0 MiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(goodConfig)
			f.files[meminfoPath] = meminfo(tc.first)
			lines := boot(t, f, func(_ context.Context, env Env) Outcome {
				for _, mib := range tc.during {
					f.files[meminfoPath] = meminfo(mib)
					time.Sleep(tc.every)
					env.Alive()
				}
				return Outcome{Line: "dump complete"}
			})
			if !slices.Contains(lines, "corehaul-send: "+tc.want) {
				t.Errorf("got %q, want %q", lines, tc.want)
			}
		})
	}
}

// What cannot be read is not told.
func TestNoMeminfo(t *testing.T) {
	for _, text := range []string{"", "MemTotal: 1 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n", "MemTotal: 1 kB\nMemAvailable: -1 kB\n"} {
		f := newFake(goodConfig)
		f.files[meminfoPath] = text
		lines := boot(t, f, func(context.Context, Env) Outcome { return Outcome{Line: "dump complete"} })
		if said := strings.Join(lines, "\n"); strings.Contains(said, "free memory") {
			t.Errorf("%q: %q", text, said)
		}
	}
}
