package main

import (
	"testing"
	"time"

	"github.com/corehaul/corehaul/kernel/printk"
)

// TestLogStyle chooses records of a log that ends 100 s after boot, and stamps them.
func TestLogStyle(t *testing.T) {
	const sec = 1e9
	crash := time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC)
	records := []printk.Record{{TSNsec: 0, Level: 6}, {TSNsec: 69.5 * sec, Level: 4, CallerID: 12}, {TSNsec: 100 * sec, Level: 0, CallerID: 1<<31 + 3}}
	for _, tc := range []struct {
		style logStyle
		want  string // stamps of the records that are kept
	}{
		{logStyle{time: "boot"}, "[    0.000000] |[   69.500000] |[  100.000000] |"},
		{logStyle{time: "boot", caller: true, level: "warn"}, "[   69.500000][   T12] |[  100.000000][    C3] |"},
		{logStyle{time: "none", level: "0"}, "|"},
		{logStyle{time: "delta", since: "69.5"}, "[+   69.500000] |[+   30.500000] |"},
		{logStyle{time: "utc", since: "-31s"}, "[2026-11-30T01:01:32.500Z] |[2026-11-30T01:02:03.000Z] |"},
		{logStyle{time: "none", since: "-1000"}, "|||"},
	} {
		if err := tc.style.parse(); err != nil {
			t.Fatal(err)
		}
		style, got := tc.style.style(100*sec, crash), ""
		for _, r := range records {
			if style.Keep(&r) {
				got += style.Stamp(&r) + "|"
			}
		}
		if got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.style, got, tc.want)
		}
	}
	for _, bad := range []logStyle{{time: "boot", level: "8"}, {time: "boot", since: "NaN"}, {time: "boot", since: "1e3"}, {time: ""}} {
		if bad.parse() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}
