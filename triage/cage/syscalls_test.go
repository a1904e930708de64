package cage

import (
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// Every call has a name on every architecture that corehaul is built for, so the filter leaves out none that is needed.
func TestCallsOfEachArchitecture(t *testing.T) {
	t.Parallel()
	var conditions []string
	for _, c := range conditional(1) {
		conditions = append(conditions, c.Name)
	}
	// newfstatat(2) is the only call with two names; its number is that of asm-generic/unistd.h, or of syscall_64.tbl.
	for _, tc := range []struct {
		arch    *arch.Info
		unknown string
		stat    string
		number  int
	}{
		{arch.X86_64, "fstatat", "newfstatat", 262},
		{arch.AARCH64, "newfstatat", "fstatat", 79},
	} {
		var unknown []string
		for _, name := range slices.Concat(allowed, hostile, conditions) {
			if _, ok := tc.arch.SyscallNames[name]; !ok {
				unknown = append(unknown, name)
			}
		}
		if !slices.Equal(unknown, []string{tc.unknown}) {
			t.Errorf("%s does not know %v", tc.arch.Name, unknown)
		}
		if got := tc.arch.SyscallNames[tc.stat]; got != tc.number {
			t.Errorf("%s: %s is %d, want %d", tc.arch.Name, tc.stat, got, tc.number)
		}
	}
}
