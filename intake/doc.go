// Package intake is the receiving side of the protocol, whoever writes the dump: a receiver on its disk, or a sender
// by itself on a server that has no receiver. A Session takes one connection from HELLO to SEALED over one
// dumpdir.Writer: it makes durable what came before it says so, checks that pages decode to what was read
// in the capture kernel, and keeps to windows and times. A Policy of the caller decides where the dump goes, when its
// pages may come, and how many.
//
// Memory is bounded by Config.Window and Config.Workers, whatever the peer sends. All that comes in is treated as hostile.
package intake
