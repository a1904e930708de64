// Package timespan has the one form of durations that people write: those of Go (90s, 1h30m), and days and weeks before them (7d, 2w,
// 1d12h). A day has 24 hours.
package timespan

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Day is 24 hours: no clock of a zone is asked.
const Day = 24 * time.Hour

// Forms describes the form to people, with examples.
const Forms = "a duration such as 30s, 15m, 1h30m, 7d or 2w"

// Parse reads a duration that is not negative.
func Parse(s string) (time.Duration, error) {
	if strings.HasPrefix(s, "-") {
		return 0, fmt.Errorf("%q is negative; write %s", s, Forms)
	}
	bad := fmt.Errorf("%q is not %s", s, Forms)
	var days time.Duration
	rest := s
	for _, unit := range []struct {
		name string
		is   time.Duration
	}{{"w", 7 * Day}, {"d", Day}} {
		number, behind, ok := strings.Cut(rest, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 16) // at most 179 years of days
		if err != nil || time.Duration(n) > (math.MaxInt64-days)/unit.is {
			return 0, bad
		}
		days, rest = days+time.Duration(n)*unit.is, behind
	}
	if rest == "" && s != "" {
		return days, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.ContainsAny(rest, "+-") || d > math.MaxInt64-days {
		return 0, bad
	}
	return days + d, nil
}

// Format writes d, which is not negative, as Parse reads it, in the shortest form: "90d", "1d12h", "15m", "0s".
func Format(d time.Duration) string {
	text, rest := "", d%Day
	if days := d / Day; days > 0 {
		text = strconv.FormatInt(int64(days), 10) + "d"
	}
	if text != "" && rest == 0 {
		return text
	}
	clock := rest.String()
	if strings.HasSuffix(clock, "m0s") {
		clock = strings.TrimSuffix(clock, "0s")
	}
	if strings.HasSuffix(clock, "h0m") {
		clock = strings.TrimSuffix(clock, "0m")
	}
	return text + clock
}
