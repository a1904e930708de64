package plaintoml_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/corehaul/corehaul/internal/plaintoml"
)

// span is a type with a text of its own.
type span time.Duration

func (s *span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*s = span(d)
	return err
}

// TestText has each kind of value where another one belongs.
func TestText(t *testing.T) {
	for _, tc := range []struct{ file, want string }{
		{`tls = 5`, `this is a number; it must be a list, such as ["one", "two"]`},
		{`tls = "[::]:1"`, `this is a text; it must be a list, such as ["one", "two"]`},
		{"[tls]\na = 1", `this is a table, and it must not be one`},
		{`n = "two"`, `this is a text; it must be a whole number, without quotes`},
		{`n = 1.5`, `this is a number; it must be a whole number, without quotes`},
		{`small = true`, `this is true or false; it must be a whole number, without quotes`},
		{`on = "true"`, `this is a text; it must be true or false, without quotes`},
		{`text = 30`, `this is a number; it must be a text in quotes`},
		{`text = ["a"]`, `this is a list; it must be a text in quotes`},
		{`span = [30]`, `this is a list; it must be of another kind`},
		{`part = 1`, `this is a number; it must be a table`},
		{`tls = [`, "array is incomplete"},
	} {
		var file struct {
			TLS   []string        `toml:"tls"`
			N     *int            `toml:"n"`
			Small uint8           `toml:"small"`
			On    *bool           `toml:"on"`
			Text  *string         `toml:"text"`
			Span  span            `toml:"span"`
			Part  struct{ A int } `toml:"part"`
		}
		err := toml.Unmarshal([]byte(tc.file), &file)
		bad, ok := errors.AsType[*toml.DecodeError](err)
		if !ok {
			t.Errorf("%q: got %v, want an error of the library with its place", tc.file, err)
			continue
		}
		if got := plaintoml.Text(bad); got != tc.want {
			t.Errorf("%q: got %q (%v), want %q", tc.file, got, err, tc.want)
		}
	}
}
