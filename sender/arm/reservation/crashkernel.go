package reservation

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Request is one crashkernel= word of a command line, in the forms of Documentation/admin-guide/kernel-parameters.txt:
//
//	SIZE[@OFFSET]
//	START-[END]:SIZE[,START-[END]:SIZE...][@OFFSET]
//	SIZE,high   SIZE,low   SIZE,cma
//
// The word for a distribution's own choice, crashkernel=auto of RHEL 7 and 8, is a Request with Auto.
type Request struct {
	// Value is the text behind the =.
	Value string
	// Ranges has the sizes by the amount of memory of the machine. A plain SIZE is one range from 0 without an end.
	Ranges []Range
	// Kind is "", "high", "low" or "cma".
	Kind string
	Auto bool
}

// A Range asks for Size bytes on machines with at least Start and less than End bytes of memory.
type Range struct{ Start, End, Size uint64 }

// ParseRequest reads the value of a crashkernel= word.
func ParseRequest(value string) (Request, error) {
	r := Request{Value: value, Auto: value == "auto"}
	if r.Auto {
		return r, nil
	}
	sizes, offset, ok := strings.Cut(value, "@")
	if _, err := parseSize(offset); ok && err != nil {
		return Request{}, fmt.Errorf("crashkernel=%s: offset %w", value, err)
	}
	for _, kind := range []string{"high", "low", "cma"} {
		if rest, ok := strings.CutSuffix(sizes, ","+kind); ok {
			sizes, r.Kind = rest, kind
		}
	}
	for part := range strings.SplitSeq(sizes, ",") {
		rng, err := parseRange(part)
		if err != nil {
			return Request{}, fmt.Errorf("crashkernel=%s: %w", value, err)
		}
		r.Ranges = append(r.Ranges, rng)
	}
	if len(r.Ranges) > 1 && !strings.Contains(sizes, ":") {
		return Request{}, fmt.Errorf("crashkernel=%s: more than one size, and no range of memory", value)
	}
	return r, nil
}

func parseRange(s string) (Range, error) {
	limits, size, ok := strings.Cut(s, ":")
	if !ok {
		n, err := parseSize(s)
		return Range{End: math.MaxUint64, Size: n}, err
	}
	r := Range{End: math.MaxUint64}
	start, end, dash := strings.Cut(limits, "-")
	if !dash {
		return Range{}, fmt.Errorf("range %q: write START-[END]:SIZE", s)
	}
	var err error
	if r.Start, err = parseSize(start); err != nil {
		return Range{}, err
	}
	if end != "" {
		if r.End, err = parseSize(end); err != nil {
			return Range{}, err
		}
	}
	if r.End <= r.Start {
		return Range{}, fmt.Errorf("range %q ends before it begins", s)
	}
	r.Size, err = parseSize(size)
	return r, err
}

var errSize = errors.New("is no size: write 256M")

// parseSize reads a number as the kernel's memparse does: decimal, octal or hexadecimal, with K, M, G or T.
func parseSize(s string) (uint64, error) {
	digits := strings.TrimRight(s, "kKmMgGtT")
	shift := uint(0)
	switch unit := strings.ToUpper(s[len(digits):]); unit {
	case "":
	case "K", "M", "G", "T":
		shift = 10 * uint(strings.Index("KMGT", unit)+1)
	default:
		return 0, fmt.Errorf("%q %w", s, errSize)
	}
	n, err := strconv.ParseUint(digits, 0, 64)
	if err != nil || n > math.MaxUint64>>shift {
		return 0, fmt.Errorf("%q %w", s, errSize)
	}
	return n << shift, nil
}

// Size returns how many bytes the request asks for on a machine with an amount of memory, 0 if for none.
func (r Request) Size(memory uint64) uint64 {
	for _, rng := range r.Ranges {
		if memory >= rng.Start && memory < rng.End {
			return rng.Size
		}
	}
	return 0
}
