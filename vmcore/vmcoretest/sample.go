package vmcoretest

import (
	"bytes"
	"compress/gzip"
	"embed"
	"io"
	"strings"
	"testing" //nolint:depguard // this package is a test helper itself
)

//go:embed testdata/*.gz
var samples embed.FS

// Sample returns the file called name of testdata, unpacked.
func Sample(tb testing.TB, name string) []byte {
	tb.Helper()
	packed, err := samples.ReadFile("testdata/" + name + ".gz")
	if err != nil {
		tb.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// Samples returns the names of the files in testdata that contain part. It fails the test if there are none.
func Samples(tb testing.TB, part string) []string {
	tb.Helper()
	files, err := samples.ReadDir("testdata")
	if err != nil {
		tb.Fatal(err)
	}
	var names []string
	for _, f := range files {
		if name := strings.TrimSuffix(f.Name(), ".gz"); strings.Contains(name, part) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		tb.Fatalf("no sample has %q in its name", part)
	}
	return names
}
