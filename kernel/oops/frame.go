package oops

import (
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// Symbols are printed as name+0xOFFSET/0xSIZE [module] (kernel/kallsyms.c, __sprint_symbol); with a build id of 40 digits
// as [module buildid], where CONFIG_STACKTRACE_BUILD_ID is set (since 5.14).
const symbolPattern = `\.?([A-Za-z_$][\w.$:<>@-]{0,254})\+0x([0-9a-f]{1,16})/0x([0-9a-f]{1,16})\)?>?(?:\s+\[([\w-]{1,64})(?: ([0-9a-f]{8,64}))?\])?`

// decodedPattern is the start of a place that scripts/decode_stacktrace.sh wrote.
const decodedPattern = `([A-Za-z_][\w.]{0,254}) \([\w./+-]{1,255}\.[chS]:\d+`

var (
	symbol = lazyregexp.New(symbolPattern)
	// frameLine matches what one of these functions prints, from the oldest to the newest kernels:
	//
	//	 [<ffffffff81234567>] ? foo+0x12/0x34 [mod]    x86 until 4.9, arm64 until 4.14, mips, riscv, s390
	//	[c000001fffff7a50] [c000000000c9f5e4] foo+0x12/0x34 (unreliable)    powerpc
	//	 ? foo+0x12/0x34 [mod 0123456789abcdef]    x86 (arch/x86/kernel/dumpstack.c)
	//	 foo+0x12/0x34 (P)    arm64 (arch/arm64/kernel/stacktrace.c)
	//
	// A symbolizer may have added the file and its line.
	frameLine = lazyregexp.New(`^\s*\(?(?:\[<?(?:0x)?([0-9a-f]{6,16})>?\]\)?\s*){0,2}(\? )?\s*` + symbolPattern +
		`(?:\s+[\w./-]+:\d+)?\s*(?:\(([A-Z]{1,6}|unreliable)\))?(?:\s+[\w./-]+:\d+)?\s*$`)
	// decodedLine is a frame that scripts/decode_stacktrace.sh wrote again, without its offset: "foo (fs/foo.c:12 fs/foo.c:34) mod".
	decodedLine = lazyregexp.New(`^\s*(\? )?` + decodedPattern + `[^()]*(?:\([^()]*\)[^()]*)*\)\s*([\w-]{1,64})?\s*(?:\(([A-Z]{1,6})\))?$`)
	decodedFunc = lazyregexp.New(decodedPattern)
	// addressLine is a frame in code without symbols.
	addressLine = lazyregexp.New(`^\s*(?:\[<(?:0x)?[0-9a-f]{6,16}>\]\s*)?(\? )?0x([0-9a-f]{1,16})(?:/0x[0-9a-f]+)?\s*(?:\(([A-Z]{1,6})\))?$`)
	// armLine is a frame of 32-bit arm (arch/arm/kernel/traps.c, dump_backtrace_entry): the function that was called, and
	// the caller: " foo from bar+0x12/0x34", "[<c0123456>] (foo) from [<c0123abc>] (bar+0x12/0x34)".
	armLine = lazyregexp.New(`^\s*(?:\[<([0-9a-f]{8})>\] )?\(?([A-Za-z_][\w.]{0,254})(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?(?: \[([\w-]{1,64})\])?\)? from (?:\[<([0-9a-f]{8})>\] )?\(?` + symbolPattern)
	// contextLine marks a stack (arch/x86/kernel/dumpstack.c): " <IRQ>", "</TASK>", " <EOI>" of 4.x.
	contextLine = lazyregexp.New(`^\s*<(/?)([#A-Z0-9_-]{2,16})>\s*`)
)

// location reads a symbol at the start of s, or an address.
func location(s string) *Location {
	s = strings.TrimSpace(s)
	address := ""
	for {
		m := bracketed.FindStringSubmatch(s)
		if m == nil {
			break
		}
		address, s = m[1], s[len(m[0]):]
	}
	if m := symbol.FindStringSubmatchIndex(s); m != nil && strings.Trim(s[:m[0]], "(< ") == "" {
		return newLocation(address, symbol.FindStringSubmatch(s)[1:])
	}
	if m := decodedFunc.FindStringSubmatch(s); m != nil && strings.HasPrefix(s, m[0]) {
		return &Location{Address: address, Function: m[1]}
	}
	if m := bareAddress.FindStringSubmatch(s); m != nil {
		return &Location{Address: m[1] + m[2]}
	}
	if strings.HasPrefix(s, "(null)") {
		return &Location{Address: "0"}
	}
	if address != "" {
		return &Location{Address: address}
	}
	return nil
}

var (
	bracketed   = lazyregexp.New(`^\[<?(?:0x)?([0-9a-f]{1,16})>?\]\s*`)
	bareAddress = lazyregexp.New(`^\(?(?:0x([0-9a-f]{1,16})|([0-9a-f]{8,16}))(?:$|[ )])`)
)

// newLocation takes the submatches of symbolPattern.
func newLocation(address string, m []string) *Location {
	return &Location{Address: address, Function: m[0], Offset: hex(m[1]), Size: hex(m[2]), Module: m[3], BuildID: m[4]}
}

// hex returns the number that at most 16 hexadecimal digits are.
func hex(s string) uint64 {
	n, _ := strconv.ParseUint(s, 16, 64) // the patterns admit nothing else
	return n
}

// parseFrames returns the frames of a line, none if it has none.
func parseFrames(text string) []Frame {
	if m := frameLine.FindStringSubmatch(text); m != nil {
		f := Frame{Location: *newLocation(m[1], m[3:8]), Unreliable: m[2] != "" || m[8] == "unreliable"}
		if !f.Unreliable {
			f.Marks = m[8]
		}
		return []Frame{f}
	}
	if m := addressLine.FindStringSubmatch(text); m != nil {
		return []Frame{{Location: Location{Address: m[2]}, Unreliable: m[1] != "", Marks: m[3]}}
	}
	if m := armLine.FindStringSubmatch(text); m != nil {
		callee := Frame{Location: Location{Address: m[1], Function: m[2], Module: m[3]}}
		return []Frame{callee, {Location: *newLocation(m[4], m[5:])}}
	}
	return nil
}

// decodedFrame returns the frame of a line that scripts/decode_stacktrace.sh wrote. Other lines of a log may look like it, so it
// is one within a trace only.
func decodedFrame(text string) []Frame {
	m := decodedLine.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	return []Frame{{Location: Location{Function: m[2], Module: m[3]}, Unreliable: m[1] != "", Marks: m[4]}}
}

// inFirstPage reports whether an address is one that a null pointer leads to.
func inFirstPage(address string) bool {
	n, err := strconv.ParseUint(address, 16, 64)
	return err == nil && n < 4096
}

// baseName is the name of a function without the suffixes of its clones: foo.isra.0.cold is foo.
func baseName(function string) string {
	name, _, _ := strings.Cut(function, ".")
	return name
}
