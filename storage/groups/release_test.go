package groups

import "testing"

func TestCompareReleases(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want Order
	}{
		{"6.1.0-9-amd64", "6.1.0-10-amd64", Older},
		{"6.1.0-rc3", "6.1.0", Older},
		{"6.1.0-rc3", "6.1.0-rc10", Older},
		{"6.1-rc3-amd64", "6.1.0-1-amd64", Older},
		{"6.1.0", "6.1.0", Same},
		{"6.1", "6.1.0", Same},
		{"6.1.9", "6.1.10", Older},
		{"6.1.0-9-amd64", "6.1.0-10-arm64", Older},
		{"6.1.0-9-cloud-amd64", "6.1.0-10-rt-amd64", Older},
		{"6.1.0-10-686-pae", "6.1.0-10-686", Same},
		{"6.1.0-10", "6.1.0-9-amd64", Newer},
		{"6.1.0-10", "6.1.0-10-amd64", Same},
		{"6.1.0-10", "5.15.0-91-generic", Newer},
		{"6.1.0-10-amd64", "6.12.38+deb13-amd64", Older},
		{"6.12.38+deb13-amd64", "6.12.43+deb13-amd64", Older},
		{"6.12.43+deb13-amd64", "6.12.43+deb13.1-amd64", Older},
		{"6.1.0-0.deb11.7-amd64", "6.1.0-10-amd64", Unordered}, // a backport counts anew
		{"6.1.0-0.deb11.7-amd64", "6.1.0-0.deb11.11-amd64", Older},
		{"6.1.0-0.deb11.7-amd64", "6.2.0-1-amd64", Older},
		{"6.1.38", "6.1.0-25-amd64", Unordered}, // which has the fixes of 6.1.106
		{"5.15.0-91-generic", "5.15.0-100-generic", Older},
		{"5.15.0-91-generic", "5.15.0-1051-aws", Unordered},
		{"5.14.0-362.8.1.el9_3.x86_64", "5.14.0-427.el9_4.aarch64", Older},
		{"5.14.0-362.el9.x86_64", "5.14.0-362.8.1.el9_3.x86_64+debug", Older},
		{"4.18.0-513.el8.x86_64", "5.14.0-362.el9.x86_64", Unordered},
		{"5.14.0-503.el9.x86_64", "6.1.0-10-amd64", Unordered},
		{"6.6.8-100.fc38.x86_64", "6.6.9-100.fc39.x86_64", Older},
		{"6.2.0-0.rc3.20230113gitd9fc1511728c.25.fc38.x86_64", "6.2.0-1.fc38.x86_64", Older},
		{"5.14.21-150500.55.39-default", "5.14.21-150500.55.7-default", Newer},
		{"6.1.66-91.160.amzn2023.x86_64", "6.1.66-93.164.amzn2023.aarch64", Older},
		{"6.1.0-rc3-00012-gabcdef0", "6.1.0-rc3-00013-g0123456", Unordered}, // perhaps of two branches
		{"6.1.0-rc3-00012-gabcdef0", "6.1.0-rc4", Older},
		{"6.1.0", "6.1.0+", Unordered},
		{"6.1.0+", "6.1.0+", Same},
		{"6.1.0+", "6.2.0", Older},
		{"6.1.0-mine", "6.1.0-yours", Unordered},
		{"5.15.133.1-microsoft-standard-WSL2", "5.15.146.1-microsoft-standard-WSL2", Older},
		{"", "", Unordered},
		{"(unknown)", "6.1.0", Unordered},
		{"6.99999999999999999999", "6.1.0", Unordered},
		{"6.1.0-rc99999999999", "6.1.0", Unordered},
	} {
		if got := CompareReleases(tc.a, tc.b); got != tc.want {
			t.Errorf("%s and %s: %d, want %d", tc.a, tc.b, got, tc.want)
		}
		mirrored := map[Order]Order{Older: Newer, Newer: Older}
		want, ok := mirrored[tc.want]
		if !ok {
			want = tc.want
		}
		if got := CompareReleases(tc.b, tc.a); got != want {
			t.Errorf("%s and %s: %d, want %d", tc.b, tc.a, got, want)
		}
	}
}

// FuzzCompareReleases: a crashed machine chooses the text. Any two have one order, which is the mirror of that of the other way round.
func FuzzCompareReleases(f *testing.F) {
	for _, pair := range [][2]string{
		{"6.1.0-9-amd64", "6.1.0-10-amd64"},
		{"6.1.0-rc3+", "6.1.0"},
		{"5.14.0-362.8.1.el9_3.x86_64+debug", "4.18.0-513.el8"},
		{"6.12.38+deb13.1-amd64", "6.1.0-0.deb11.7-amd64"},
		{"6.2.0-0.rc3.20230113gitd9fc1.25.fc38", "\x00.\xff"},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := CompareReleases(a, b), CompareReleases(b, a)
		if x < Unordered || x > Newer || (x == Unordered) != (y == Unordered) || x != Unordered && x-Same != Same-y {
			t.Errorf("%q and %q: %d and %d", a, b, x, y)
		}
		if got := CompareReleases(a, a); got != Same && a != "" {
			t.Errorf("%q and itself: %d", a, got)
		}
	})
}
