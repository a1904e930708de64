package vmcore_test

import (
	"testing"

	"github.com/corehaul/corehaul/vmcore"
)

func TestIsZero(t *testing.T) {
	for _, n := range []int{0, 1, 4096, vmcore.MaxPageSize, 2*vmcore.MaxPageSize + 1} {
		p := make([]byte, n)
		if !vmcore.IsZero(p) {
			t.Errorf("%d bytes of zeros", n)
		}
		for _, at := range []int{0, n / 2, n - 1} {
			if n == 0 {
				continue
			}
			p[at] = 1
			if vmcore.IsZero(p) {
				t.Errorf("%d bytes, one of them set, at %d", n, at)
			}
			p[at] = 0
		}
	}
}
