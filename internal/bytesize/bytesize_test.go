package bytesize_test

import (
	"testing"

	"github.com/corehaul/corehaul/internal/bytesize"
)

func TestParseAndFormat(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want uint64
		text string
	}{
		{"0", 0, "0 B"},
		{"1023", 1023, "1023 B"},
		{"64K", 64 << 10, "64.0 KiB"},
		{"1.5GiB", 3 << 29, "1.5 GiB"},
		{"2 TB", 2 << 40, "2.0 TiB"},
		{"1048575", 1<<20 - 1, "1.0 MiB"},
	} {
		got, err := bytesize.Parse(tc.in)
		if err != nil || got != tc.want || bytesize.Format(got) != tc.text {
			t.Errorf("%q: got %d (%q), %v, want %d (%q)", tc.in, got, bytesize.Format(got), err, tc.want, tc.text)
		}
	}
	for _, bad := range []string{"", "K", "-1", "1X", "99999999999P", "1.2.3M", "1e9"} {
		if n, err := bytesize.Parse(bad); err == nil {
			t.Errorf("%q: got %d, want an error", bad, n)
		}
	}
}

func TestForms(t *testing.T) {
	for _, tc := range []struct {
		n           uint64
		fine, exact string
	}{
		{0, "0 B", "0 bytes"},
		{1023, "1023 B", "1023 bytes"},
		{5000, "4.883 KiB", "4.9 KiB (5000 bytes)"},
		{1<<30 - 1<<16, "1023.938 MiB", "1023.9 MiB (1073676288 bytes)"},
		{1<<30 - 1, "1.000 GiB", "1.0 GiB (1073741823 bytes)"},
		{1 << 63, "8.000 EiB", "8.0 EiB (9223372036854775808 bytes)"},
	} {
		if fine, exact := bytesize.Fine(tc.n), bytesize.Exact(tc.n); fine != tc.fine || exact != tc.exact {
			t.Errorf("%d: got %q and %q, want %q and %q", tc.n, fine, exact, tc.fine, tc.exact)
		}
	}
}

func TestBinary(t *testing.T) {
	for in, want := range map[string]string{"30MB": "30MiB", " 1.5 gb ": "1.5GiB", "30M": "", "30MiB": "", "30B": "", "30": "", "": "", "MB": "MiB", "BB": ""} {
		got, is := bytesize.Binary(in)
		if is != (want != "") || is && got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, is, want)
		}
		n, err := bytesize.Parse(in)
		if m, werr := bytesize.Parse(got); n != m || (err == nil) != (werr == nil) {
			t.Errorf("%q is %d, %q is %d", in, n, got, m)
		}
	}
}
