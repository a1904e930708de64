// Package intake is what stands between the wire (package protocol) and a dump directory
// (package dumpdir), whoever writes it: a receiver on its disk, or a sender by itself on a
// server that has no receiver. It turns messages into what a dumpdir.Writer takes, checks on
// the way that pages decode to what was read in the capture kernel, and turns what the writer
// says into answers.
//
// All that comes in is treated as hostile.
package intake
