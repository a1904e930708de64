package oops

import (
	"regexp"
	"strings"
)

// ipLines are the forms of the program counter's line. Group 1 is a code segment of x86 or empty, group 2 the place.
var ipLines = []*regexp.Regexp{
	regexp.MustCompile(`^E?R?IP: ([0-9a-f]{4}):(.*)$`),               // x86 (arch/x86/kernel/dumpstack.c, show_ip)
	regexp.MustCompile(`^(?:EIP is at|PC is at|pc is at)()\s+(.*)$`), // i386 before 4.16, arm, sh, alpha
	regexp.MustCompile(`^(?:EIP|IP):?()\s+(.*)$`),                    // i386; the line below "BUG: unable to handle" until 4.19
	regexp.MustCompile(`^RIP() +(.*)$`),                              // the last line of a report until 4.19
	regexp.MustCompile(`^pc :()\s*(.*)$`),                            // arm64 (arch/arm64/kernel/process.c)
	regexp.MustCompile(`^NIP()\s+(\[.*)$`),                           // powerpc (arch/powerpc/kernel/process.c)
	regexp.MustCompile(`^(?:epc|era|ERA)\s*:()\s*(.*)$`),             // riscv, mips, loongarch
	regexp.MustCompile(`^Krnl PSW :() [0-9a-f]+ ([0-9a-f]+.*)$`),     // s390 (arch/s390/kernel/dumpstack.c)
	regexp.MustCompile(`^TPC:() <(.*)$`),                             // sparc64
	regexp.MustCompile(`^\s*IAOQ\[0\]:()\s*(.*)$`),                   // parisc
	regexp.MustCompile(`^PC:()\s+(.*)$`),                             // m68k, csky
}

var (
	lrLine = regexp.MustCompile(`^\s*(?:lr :|LR is at|ra is at|LR (\[)|ra\s*:|RPC: <|I7: <|RP\(r2\):)\s*(.*)$`)
	// userLine says that registers are those of user space: code segment 0x33 or 0x23 of x86, User PSW of s390.
	userPSW = regexp.MustCompile(`^User PSW :`)
	// pair is a register and its value. x86 puts the segment before RSP, and the segment registers' own behind FS and GS.
	pair = regexp.MustCompile(`([A-Za-z$][\w.$]{0,9}(?:\(r2\))?)\s*: ?\s?(?:[0-9a-f]{4}:)?(?:\[<)?([0-9a-f]{4,16})(?:>\])?\b(?:\([0-9a-f]{4}\))?`)
	// several are registers in one row: powerpc's GPR00, s390's GPRS, mips's $ 0.
	several = regexp.MustCompile(`^(GPR\d\d|Krnl GPRS|User GPRS|\$ ?\d{1,2})\s*:((?:\s+[0-9a-f]{8,16}){2,})$`)
	// rest is what may be left of a line of registers.
	rest = regexp.MustCompile(`^[\s,]*(?:\([^)]*\)|<[^>]*>)?[\s,]*$`)
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
var psw = regexp.MustCompile(`^([0-9a-f]{8,16}) (\(?.*)$`)

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
