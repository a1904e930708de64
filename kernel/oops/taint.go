package oops

import (
	"slices"
	"strings"
)

// Taint is the state "Tainted: G        W  OE" of the kernel. Flags is empty if it says "Not tainted".
type Taint struct {
	Flags []TaintFlag `json:"flags"`
}

// TaintFlag is one letter of a taint.
type TaintFlag struct {
	Letter string `json:"letter"`
	Text   string `json:"text"` // "" for a letter that this program does not know
}

// taintTexts are the letters of taint_flags in kernel/panic.c, and what Documentation/admin-guide/tainted-kernels.rst
// means by them. G only says that P is not set. Red Hat's kernels print "-" for letters of their own that are not set, as in
// "Tainted: G           OE    --------- -t - 4.18.0-147.el8".
var taintTexts = map[byte]string{
	'P': "proprietary module was loaded",
	'F': "module was force loaded",
	'S': "processor out of specification",
	'R': "module was force unloaded",
	'M': "machine check exception occurred",
	'B': "bad page was found",
	'U': "taint requested by userspace",
	'D': "kernel died recently",
	'A': "ACPI table was overridden",
	'W': "kernel issued a warning",
	'C': "staging driver was loaded",
	'I': "workaround for a firmware bug",
	'O': "out-of-tree module was loaded",
	'E': "unsigned module was loaded",
	'L': "soft lockup occurred",
	'K': "kernel was live patched",
	'X': "auxiliary taint, defined by the distribution",
	'T': "kernel was built with struct randomization",
	'N': "in-kernel test was run, or, on SUSE's kernels, an unsupported module was loaded", // SUSE's TAINT_NO_SUPPORT
	'J': "userspace used a mutating debug operation of fwctl",
}

// newTaint decodes letters and spaces.
func newTaint(letters string) *Taint {
	t := &Taint{Flags: []TaintFlag{}}
	for _, c := range []byte(letters) {
		if c == ' ' || c == '-' || c == 'G' || slices.ContainsFunc(t.Flags, func(f TaintFlag) bool { return f.Letter == string(c) }) {
			continue
		}
		t.Flags = append(t.Flags, TaintFlag{Letter: string(c), Text: taintTexts[c]})
	}
	return t
}

// String returns the letters, or "not tainted".
func (t *Taint) String() string {
	if len(t.Flags) == 0 {
		return "not tainted"
	}
	var letters strings.Builder
	for _, f := range t.Flags {
		letters.WriteString(f.Letter)
	}
	return letters.String()
}
