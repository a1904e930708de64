// Package intake is the receiving side of the protocol, for a receiver on its own disk and for a sender that writes
// to a server without a receiver. A Session takes one connection from HELLO to SEALED over one dumpdir.Writer: it
// makes data durable before it acknowledges it, checks that pages decode to what the sender read, and enforces
// windows and timeouts. The caller's Policy decides where the dump goes, when its pages may come, and how many.
//
// Config.Window and Config.Workers bound the memory, whatever the peer sends. All input is treated as hostile.
package intake
