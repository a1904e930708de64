// Package depot is the far end of the protocol for a server that has no receiver: it stands
// in the sender's own process and writes the dump directory by itself, over whatever file
// system it is given.
//
//	sender session <--protocol, in memory--> depot --> dumpdir.Writer --> SFTP
//
// So everything that a session does holds here too: the log first, resume from what is
// durable, windows, deadlines, fail-over. Under its root it keeps dumps/HOST/TIME-ID, as a
// receiver does, so that one can be pointed at it later. HOST is the name that the crashed
// kernel had, as no transport proves one. A dump has one plan here: another one is refused
// as long as the dump is there.
//
// It treats what it finds on the server as hostile, as every dumpdir does.
package depot
