package printk_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/kerneltest"
)

// The log of kernels with pages of 16 and 64 KiB, in a ring and in the older buffer, over many pages.
func TestLogOnLargePages(t *testing.T) {
	for _, tc := range []struct{ shift, built, bits int }{
		{14, 36, 36},
		{14, 47, 47},
		{14, 48, 48},
		{14, 52, 52},
		{14, 52, 47},
		{16, 42, 42},
		{16, 48, 48},
		{16, 52, 52},
		{16, 52, 48},
	} {
		ring, old := kerneltest.NewRing(12, 18), kerneltest.NewLog(1<<18)
		var want strings.Builder
		for i := range 3000 {
			text := fmt.Sprintf("line %d %s", i, strings.Repeat("x", i%50))
			ring.Add(uint64(i)*1000, text)
			old.Add(uint64(i)*1000, text, "")
			fmt.Fprintf(&want, "[    0.%06d] %s\n", i, text)
		}
		for kind, install := range map[string]func(*kerneltest.Machine){
			"ring":   func(m *kerneltest.Machine) { m.InstallRing(ring.RingImage) },
			"buffer": func(m *kerneltest.Machine) { m.InstallLog(old, "printk_log") },
		} {
			m := kerneltest.NewARM64Pages(uint(tc.shift), tc.built, tc.bits)
			install(m)
			if got, err := dump(t, m); err != nil || got != want.String() {
				t.Errorf("%s, pages of %d KiB, %d of %d bits: %d bytes of log, want %d; %v",
					kind, 1<<tc.shift>>10, tc.bits, tc.built, len(got), want.Len(), err)
			}
		}
	}
}
