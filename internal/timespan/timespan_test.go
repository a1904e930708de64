package timespan_test

import (
	"testing"
	"time"

	"github.com/corehaul/corehaul/internal/timespan"
)

func TestParseAndFormat(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		in, text string
		want     time.Duration
	}{
		{"0", "0s", 0},
		{"0s", "0s", 0},
		{"0d", "0s", 0},
		{"90s", "1m30s", 90 * time.Second},
		{"1.5h", "1h30m", 90 * time.Minute},
		{"250ms", "250ms", 250 * time.Millisecond},
		{"10m", "10m", 10 * time.Minute},
		{"1h", "1h", time.Hour},
		{"1h10m", "1h10m", time.Hour + 10*time.Minute},
		{"10h0m20s", "10h0m20s", 10*time.Hour + 20*time.Second},
		{"36h", "1d12h", 36 * time.Hour},
		{"7d", "7d", 7 * day},
		{"1d12h", "1d12h", 36 * time.Hour},
		{"2w", "14d", 14 * day},
		{"1w1d1s", "8d1s", 8*day + time.Second},
		{"15250w", "106750d", 106750 * day},
	} {
		got, err := timespan.Parse(tc.in)
		if err != nil || got != tc.want || timespan.Format(got) != tc.text {
			t.Errorf("%q: got %v (%q), %v, want %v (%q)", tc.in, got, timespan.Format(got), err, tc.want, tc.text)
		}
	}
	for _, bad := range []string{
		"", "d", "w", "s", "3", "3x", "-1h", "-7d", "+7d", "7d-1h", "7d+1h", "1.5d", "1d1w", "1d1d", "99999d", "65535w", "15250w2d", " 7d", "7 d", "1h7d", "9999999h",
	} {
		if d, err := timespan.Parse(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, d)
		}
	}
}

// FuzzParse holds that what Format writes is what Parse read.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"90s", "1w2d3h4m5.6s", "0", "7d", "999999h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := timespan.Parse(s)
		if err != nil {
			return
		}
		if back, err := timespan.Parse(timespan.Format(d)); err != nil || back != d || d < 0 {
			t.Errorf("%q is %v, written %q, read %v, %v", s, d, timespan.Format(d), back, err)
		}
	})
}
