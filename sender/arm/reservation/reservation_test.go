package reservation

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRequest(t *testing.T) {
	const inf = math.MaxUint64
	for _, tc := range []struct {
		value string
		want  Request
	}{
		{"256M", Request{Ranges: []Range{{0, inf, 256 << 20}}}},
		{"0x10000000@16M", Request{Ranges: []Range{{0, inf, 256 << 20}}}},
		{"1G,high", Request{Ranges: []Range{{0, inf, 1 << 30}}, Kind: "high"}},
		{"128M,low", Request{Ranges: []Range{{0, inf, 128 << 20}}, Kind: "low"}},
		{"512M,cma", Request{Ranges: []Range{{0, inf, 512 << 20}}, Kind: "cma"}},
		{"auto", Request{Auto: true}},
		{ // Red Hat 9
			"1G-4G:192M,4G-64G:256M,64G-:512M",
			Request{Ranges: []Range{{1 << 30, 4 << 30, 192 << 20}, {4 << 30, 64 << 30, 256 << 20}, {64 << 30, inf, 512 << 20}}},
		},
		{"2G-:384M@64M", Request{Ranges: []Range{{2 << 30, inf, 384 << 20}}}}, // with an offset
	} {
		tc.want.Value = tc.value
		got, err := ParseRequest(tc.value)
		if d := cmp.Diff(tc.want, got); err != nil || d != "" {
			t.Errorf("%s: %v, -want +got\n%s", tc.value, err, d)
		}
	}
}

func TestParseRequestErrors(t *testing.T) {
	for value, has := range map[string]string{
		"": "no size", "lots": "no size", "256MB": "no size", "256M@": "offset", "-1M": "no size", "16777216T": "no size",
		"4G-1G:256M": "ends before", "1G:256M": "START-[END]", "1G-x:256M": "no size", "256M,512M": "more than one size", "1G-4G:": "no size",
	} {
		if r, err := ParseRequest(value); err == nil || !strings.Contains(err.Error(), has) {
			t.Errorf("%s: got %+v, %v, want an error with %q", value, r, err, has)
		}
	}
}

// system makes the files of a running kernel.
func system(t *testing.T, size, line, iomem string) string {
	t.Helper()
	return tree(t, map[string]string{"sys/kernel/kexec_crash_size": size + "\n", "proc/cmdline": line + "\n", "proc/iomem": iomem})
}

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRead(t *testing.T) {
	s, err := Read(system(t, "268435456", "console=ttyS0 crashkernel=256M", read(t, "iomem-6.1-guest")))
	if err != nil {
		t.Fatal(err)
	}
	want := &State{
		Size: 256 << 20, Areas: []Area{{0x2f000000, 0x3f000000}}, Memory: 0x9fc00 - 0x1000 + 0x3ffda000 - 0x100000,
		Requests: []Request{{Value: "256M", Ranges: []Range{{0, math.MaxUint64, 256 << 20}}}},
	}
	if d := cmp.Diff(want, s); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// Without rights, the kernel shows zeros.
func TestReadHidden(t *testing.T) {
	s, err := Read(system(t, "0", "", "00000000-00000000 : System RAM\n  00000000-00000000 : Crash kernel\n"))
	if err != nil || len(s.Areas) > 0 || s.Memory > 0 {
		t.Errorf("got %+v, %v, want no area and no memory", s, err)
	}
}

func TestReadErrors(t *testing.T) {
	if _, err := Read(t.TempDir()); !errors.Is(err, ErrNoKexec) {
		t.Errorf("got %v, want ErrNoKexec", err)
	}
	for _, tc := range [][2]string{{"many", ""}, {"0", "2-1 : System RAM\n"}, {"0", "0-ffffffffffffffff : System RAM\n"}} {
		if s, err := Read(system(t, tc[0], "", tc[1])); err == nil {
			t.Errorf("%q: got %+v, want an error", tc, s)
		}
	}
}

func TestMissing(t *testing.T) {
	const ram = "100000000-1ffffffff : System RAM\n"
	for line, want := range map[string]string{
		"console=ttyS0":                    "not on the command line",
		"crashkernel=lots":                 "understands no crashkernel=",
		"crashkernel=8G-:256M":             "reserves nothing on a machine with 4.0 GiB",
		"crashkernel=1M crashkernel=3500M": "for crashkernel=3500M: it had no room",
		"crashkernel=auto":                 "for crashkernel=auto",
	} {
		s, err := Read(system(t, "0", line, ram))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Missing(); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}

func TestRecommend(t *testing.T) {
	for _, tc := range []struct{ memory, need, want uint64 }{
		{1 << 30, 0, 256 << 20}, {32 << 30, 0, 512 << 20}, {1 << 30, 256<<20 + 1, 320 << 20}, {64 << 30, 300 << 20, 512 << 20},
	} {
		if got := Recommend(tc.memory, tc.need); got != tc.want {
			t.Errorf("%+v: got %d", tc, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	iomem, err := os.ReadFile("testdata/iomem-6.1-guest")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("1G-4G:192M,4G-:256M@16M", iomem)
	f.Add("64M,low", []byte("0-ffffffffffffffff : Crash kernel\n"))
	f.Fuzz(func(t *testing.T, value string, iomem []byte) {
		r, err := ParseRequest(value)
		if err != nil && (r.Ranges != nil || r.Auto) {
			t.Fatal("a request and an error")
		}
		for _, rng := range r.Ranges {
			if rng.End <= rng.Start || r.Size(rng.Start) == 0 && rng.Size != 0 && len(r.Ranges) == 1 {
				t.Fatalf("%q: %+v", value, r)
			}
		}
		s := &State{}
		if s.readIOMem(strings.NewReader(string(iomem))) != nil {
			return
		}
		for _, a := range s.Areas {
			if a.End <= a.Start {
				t.Fatalf("area %+v", a)
			}
		}
	})
}
