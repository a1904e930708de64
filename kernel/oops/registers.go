package oops

import (
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// ipLines are the forms of the program counter's line. Group 1 is a code segment of x86 or empty, group 2 the place.
var ipLines = []*lazyregexp.Regexp{
	lazyregexp.New(`^E?R?IP: ([0-9a-f]{4}):(.*)$`),               // x86 (arch/x86/kernel/dumpstack.c, show_ip)
	lazyregexp.New(`^(?:EIP is at|PC is at|pc is at)()\s+(.*)$`), // i386 before 4.16, arm, sh, alpha
	lazyregexp.New(`^(?:EIP|IP):?()\s+(.*)$`),                    // i386; the line below "BUG: unable to handle" until 4.19
	lazyregexp.New(`^RIP() +(.*)$`),                              // the last line of a report until 4.19
	lazyregexp.New(`^pc :()\s*(.*)$`),                            // arm64 (arch/arm64/kernel/process.c)
	lazyregexp.New(`^NIP()\s+(\[.*)$`),                           // powerpc (arch/powerpc/kernel/process.c)
	lazyregexp.New(`^(?:epc|era|ERA)\s*:()\s*(.*)$`),             // riscv, mips, loongarch
	lazyregexp.New(`^Krnl PSW :() [0-9a-f]+ ([0-9a-f]+.*)$`),     // s390 (arch/s390/kernel/dumpstack.c)
	lazyregexp.New(`^TPC:() <(.*)$`),                             // sparc64
	lazyregexp.New(`^\s*IAOQ\[0\]:()\s*(.*)$`),                   // parisc
	lazyregexp.New(`^PC:()\s+(.*)$`),                             // m68k, csky
}

var (
	lrLine = lazyregexp.New(`^\s*(?:lr :|LR is at|ra is at|LR (\[)|ra\s*:|RPC: <|I7: <|RP\(r2\):)\s*(.*)$`)
	// userLine says that registers are those of user space: code segment 0x33 or 0x23 of x86, User PSW of s390.
	userPSW = lazyregexp.New(`^User PSW :`)
	// pair is a register and its value. x86 puts the segment before RSP, and the segment registers' own behind FS and GS.
	pair = lazyregexp.New(`([A-Za-z$][\w.$]{0,9}(?:\(r2\))?)\s*: ?\s?(?:[0-9a-f]{4}:)?(?:\[<)?([0-9a-f]{4,16})(?:>\])?\b(?:\([0-9a-f]{4}\))?`)
	// several are registers in one row: powerpc's GPR00, s390's GPRS, mips's $ 0.
	several = lazyregexp.New(`^(GPR\d\d|Krnl GPRS|User GPRS|\$ ?\d{1,2})\s*:((?:\s+[0-9a-f]{8,16}){2,})$`)
	// rest is what may be left of a line of registers.
	rest = lazyregexp.New(`^[\s,]*(?:\([^)]*\)|<[^>]*>)?[\s,]*$`)
)

// instructionPointer reads a line of the program counter. user says that it is one of user space.
func instructionPointer(text string) (ip *Location, user, ok bool) {
	text = strings.TrimSpace(text)
	for _, re := range ipLines {
		m := re.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		place := m[2]
		if parts := psw.FindStringSubmatch(place); parts != nil {
			place = "[<" + parts[1] + ">] " + parts[2]
		}
		ip = location(place)
		return ip, len(m[1]) == 4 && (m[1][3] == '3' || m[1][3] == 'b'), ip != nil
	}
	return nil, true, userPSW.MatchString(text)
}

// psw is an address before a symbol: s390's "00000000001b3dbe (foo+0x12/0x34)", mips's "8010a0b4 foo+0x14/0x30".
var psw = lazyregexp.New(`^([0-9a-f]{8,16}) (\(?.*)$`)

// registers reads a line of registers, nil if it is none.
func registers(text string) Registers {
	text = strings.TrimSpace(text)
	if m := several.FindStringSubmatch(text); m != nil {
		return Registers{{Name: m[1], Value: strings.Join(strings.Fields(m[2]), " ")}}
	}
	if rest.MatchString(text) || strings.HasPrefix(text, "task: ") || !rest.MatchString(pair.ReplaceAllString(text, "")) {
		return nil
	}
	var list Registers
	for _, m := range pair.FindAllStringSubmatch(text, -1) {
		list = append(list, Register{Name: m[1], Value: m[2]})
	}
	return list
}
