package dumpdir_test

import (
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
)

// TestHashFile compares the hash of files around the length of a block, and of one with holes between its blocks, with that of their bytes.
func TestHashFile(t *testing.T) {
	const block = dumpdir.HashBlock
	name := filepath.Join(t.TempDir(), "file")
	for _, size := range []int{0, 1, block - 1, block, block + 1, 2 * block, 7*block + 5} {
		for _, holes := range []bool{false, true} {
			content := make([]byte, size)
			_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(content) // it never fails
			f, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			err = f.Truncate(int64(size))
			for at := 0; at < size && err == nil; at += block / 2 {
				piece := content[at:min(at+block/2, size)]
				if holes && at/(block/2)%3 != 1 {
					clear(piece)
					continue
				}
				_, err = f.WriteAt(piece, int64(at))
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			got, sum, err := dumpdir.HashFile(dumpdir.OS{}, name, nil)
			if err != nil || got != int64(size) || sum != sha256.Sum256(content) {
				t.Errorf("%d bytes, holes %v: %d, %x, %v", size, holes, got, sum, err)
			}
		}
	}
	stop := errors.New("stopped")
	if _, _, err := dumpdir.HashFile(dumpdir.OS{}, name, func() error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the error of stop", err)
	}
}
