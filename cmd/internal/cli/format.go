package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/internal/printable"
	"github.com/corehaul/corehaul/internal/timespan"
)

// BytesValue is a flag that holds a number of bytes.
type BytesValue uint64

func (b *BytesValue) String() string {
	return strings.NewReplacer(" ", "", ".0 ", "").Replace(bytesize.Format(uint64(*b)))
}

// Set implements pflag.Value.
func (b *BytesValue) Set(s string) error {
	n, err := bytesize.Parse(s)
	if err != nil {
		return err
	}
	*b = BytesValue(n)
	return nil
}

// UnmarshalText lets a configuration file hold "512MiB".
func (b *BytesValue) UnmarshalText(text []byte) error { return b.Set(string(text)) }

// Type implements pflag.Value.
func (b *BytesValue) Type() string { return "bytes" }

// DurationValue is a flag, or a key of a configuration, that holds a duration that is not negative: package timespan has its form.
type DurationValue time.Duration

func (d *DurationValue) String() string { return timespan.Format(time.Duration(*d)) }

// Set implements pflag.Value.
func (d *DurationValue) Set(s string) error {
	v, err := timespan.Parse(s)
	*d = DurationValue(v)
	return err
}

// UnmarshalText lets a configuration file hold "90d".
func (d *DurationValue) UnmarshalText(text []byte) error { return d.Set(string(text)) }

// Type implements pflag.Value.
func (d *DurationValue) Type() string { return "duration" }

// DurationVar adds a flag that holds a duration.
func DurationVar(flags *pflag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	flags.Var((*DurationValue)(d), name, usage)
}

// Duration formats a measured d for people: "850ms", "12.3s", "4m05s", "2h03m", "3d04h".
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Duration(-d)
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d >= 2*timespan.Day:
		return fmt.Sprintf("%dd%02dh", int(d/timespan.Day), int(d.Hours())%24)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// Time formats t in UTC to the second, a zero time as "-".
func Time(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// shortColumns is the width of terminals that are too narrow for whole times in tables.
const shortColumns = 70

// TableTime formats t as Time, for a column of a table on w. On a narrow terminal, it leaves out the year and the seconds.
func TableTime(w io.Writer, t time.Time) string {
	if columns := Width(w); t.IsZero() || columns == 0 || columns >= shortColumns {
		return Time(t)
	}
	return t.UTC().Format("01-02 15:04Z")
}

// Printable escapes the characters of s that could control a terminal or break a line: see package printable.
func Printable(s string) string { return printable.Escape(s) }

// JSON writes v to w as one indented document. It writes characters that could control a terminal as \uNNNN, so the
// document keeps its meaning.
func JSON(w io.Writer, v any) error { return encodeJSON(w, v, "  ") }

// JSONLine writes v like JSON, in one line.
func JSONLine(w io.Writer, v any) error { return encodeJSON(w, v, "") }

func encodeJSON(w io.Writer, v any, indent string) error {
	out := printable.NewJSON(w)
	enc := json.NewEncoder(out)
	enc.SetIndent("", indent)
	enc.SetEscapeHTML(false)
	if err := errors.Join(enc.Encode(v), out.Close()); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
