// Package bytesize has the one form of numbers of bytes that people read and write. All units are binary: KiB is 1024.
package bytesize

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// units are each 1024 times the one before.
var units = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// Format formats n with one decimal: "1.5 GiB", "512 B".
func Format(n uint64) string { return format(n, 1) }

// Fine formats n with three decimals, so that two numbers can be compared: "1.512 GiB".
func Fine(n uint64) string { return format(n, 3) }

// Exact formats n beside the exact number: "1.5 GiB (1610612736 bytes)".
func Exact(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%s (%d bytes)", Format(n), n)
}

func format(n uint64, decimals int) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	v, u := float64(n), 0
	// What rounds to 1024 belongs to the next unit.
	for limit := 1024 - math.Pow10(-decimals)/2; v >= limit && u < len(units)-1; u++ {
		v /= 1024
	}
	return fmt.Sprintf("%.*f %s", decimals, v, units[u])
}

// Parse reads a number of bytes: "4096", "64K", "1.5GiB". Every unit is binary: K and KiB are 1024. So is KB, an older spelling: see
// Binary.
func Parse(s string) (uint64, error) {
	text := strings.TrimSpace(s)
	end := strings.IndexFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end < 0 {
		end = len(text)
	}
	shift, ok := unitShift(strings.TrimSpace(text[end:]))
	switch {
	case end == 0:
		return 0, fmt.Errorf("%q is not a number of bytes, such as 512MiB or 1.5GiB", s)
	case !ok:
		return 0, fmt.Errorf("size %q: the unit is none of KiB, MiB, GiB, TiB, PiB", s)
	}
	if n, err := strconv.ParseUint(text[:end], 10, 64); err == nil {
		if n > math.MaxUint64>>shift {
			return 0, fmt.Errorf("size %q is too large", s)
		}
		return n << shift, nil
	}
	f, err := strconv.ParseFloat(text[:end], 64)
	if err != nil {
		return 0, fmt.Errorf("size %q is not a number of bytes", s)
	}
	if f *= float64(uint64(1) << shift); f >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	return uint64(f), nil
}

// Binary returns a size whose unit is written as a decimal one, KB or MB, as Parse reads it: with KiB or MiB. It reports whether the
// unit is written so.
func Binary(s string) (binary string, is bool) {
	text := strings.TrimSpace(s)
	number := strings.TrimRight(text, "kmgtpKMGTPbB")
	unit := strings.ToUpper(text[len(number):])
	if len(unit) != 2 || unit[1] != 'B' || unit[0] == 'B' {
		return s, false
	}
	return strings.TrimSpace(number) + unit[:1] + "iB", true
}

func unitShift(unit string) (uint, bool) {
	unit = strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(unit), "B"), "I")
	for i, u := range []string{"", "K", "M", "G", "T", "P"} {
		if unit == u {
			return uint(10 * i), true
		}
	}
	return 0, false
}
