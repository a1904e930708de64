package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// kernelTypesMember is a line of crash's "struct -o": offset, and the name of a member that is no function pointer. Bit
// fields, which it lists by their bytes, are left out.
var kernelTypesMember = regexp.MustCompile(`(?m)^ *\[(\d+)\] [^:;()]*?(\w+)(?:\[\d+\])*;$`)

// kernelTypesSize is the last line of "struct -o".
var kernelTypesSize = regexp.MustCompile(`(?m)^SIZE: (\d+)$`)

// TestKernelTypes compares offsets and sizes that BTF gives with those that crash has from DWARF.
func TestKernelTypes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"5.10", "6.1", "6.12"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := tasksCapture(t, lab.Scenario{Kernel: name, Kexec: "c"})
			known := openDump(t, c).Types
			compared := 0
			for _, structure := range lab.CrashStructures {
				command := lab.CrashStructure(structure)
				text := judgesCrashOriginal(t, c, command)[command]
				size := kernelTypesSize.FindStringSubmatch(text)
				if got, err := known.Size(structure); err != nil || size == nil || fmt.Sprint(got) != size[1] {
					t.Errorf("size of %s: got %d, %v, want %s", structure, got, err, size)
				}
				for _, m := range kernelTypesMember.FindAllStringSubmatch(text, -1) {
					offset, _ := strconv.ParseUint(m[1], 10, 64)
					if got, err := known.Offset(structure, m[2]); err != nil || got != offset {
						t.Errorf("%s.%s: got %d, %v, want %d", structure, m[2], got, err, offset)
					}
					compared++
				}
			}
			if compared < 500 {
				t.Errorf("compared only %d members", compared)
			}
			t.Logf("%d members", compared)
		})
	}
}
