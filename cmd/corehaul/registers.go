package main

import (
	"fmt"
	"strings"

	"github.com/corehaul/corehaul/triage"
)

// x86Rows are the registers of x86_64 as crash prints them: the name in struct pt_regs, and crash's.
var x86Rows = [][][2]string{
	{{"ip", "RIP"}, {"sp", "RSP"}, {"flags", "RFLAGS"}},
	{{"ax", "RAX"}, {"bx", "RBX"}, {"cx", "RCX"}},
	{{"dx", "RDX"}, {"si", "RSI"}, {"di", "RDI"}},
	{{"bp", "RBP"}, {"r8", " R8"}, {"r9", " R9"}},
	{{"r10", "R10"}, {"r11", "R11"}, {"r12", "R12"}},
	{{"r13", "R13"}, {"r14", "R14"}, {"r15", "R15"}},
	{{"orig_ax", "ORIG_RAX"}, {"cs", "CS"}, {"ss", "SS"}},
}

// writeRegisters writes the registers of a frame in the form of crash.
func writeRegisters(b *strings.Builder, regs []triage.Register) {
	if len(regs) == 0 {
		return
	}
	values := map[string]string{}
	for _, r := range regs {
		values[r.Name] = r.Value
	}
	rows := x86Rows
	if _, x86 := values["ip"]; !x86 {
		rows = armRows
	}
	for _, row := range rows {
		var parts []string
		for _, r := range row {
			if v, ok := values[r[0]]; ok {
				parts = append(parts, r[1]+": "+shortened(r[0], v))
			}
		}
		if len(parts) > 0 {
			fmt.Fprintf(b, "    %s\n", strings.Join(parts, "  "))
		}
	}
}

// shortened is the value of a register that has fewer than 64 bits of contents, as crash prints it.
func shortened(name, value string) string {
	digits := map[string]int{"flags": 8, "cs": 4, "ss": 4, "pstate": 8}[name]
	if digits == 0 || len(value) < digits {
		return value
	}
	return value[len(value)-digits:]
}

// armRows are the registers of arm64, three in a row.
var armRows = func() (rows [][][2]string) {
	rows = append(rows, [][2]string{{"pc", " PC"}, {"x30", " LR"}, {"sp", " SP"}, {"pstate", "PSTATE"}})
	for i := 29; i >= 0; i -= 3 {
		var row [][2]string
		for n := i; n > i-3 && n >= 0; n-- {
			row = append(row, [2]string{fmt.Sprintf("x%d", n), fmt.Sprintf("%3s", fmt.Sprintf("X%d", n))})
		}
		rows = append(rows, row)
	}
	return rows
}()
