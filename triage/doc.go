// Package triage says what crashed and where: one dump, or one log, becomes one Report. It needs no debug symbols: a dump
// carries the kernel's symbol table, its types and its unwind tables (see kernel/kallsyms, kernel/types and kernel/unwind).
//
// The log and the memory are two witnesses. The log names kind, title and the place of the fault, because the kernel knew
// them when it crashed. Memory adds what the log does not have: all tasks and CPUs, modules, build id and size of the machine.
// Where only one of them can be read, the report is made of that one and says so.
//
// The input is hostile. A value that makes no sense counts as unknown, and Report.Unread says what could not be read.
// A panic in the code that reads a dump becomes a line of Unread as well.
package triage
