// Package receiver takes dumps in: it runs the receiving side of the protocol
// (protocol/PROTOCOL.md) for many senders at once and puts what they send into a
// storage.Store.
//
// A session runs over any net.Conn whose peer a transport has authenticated; TLS is
// the one built in (ServeTLS), HandleConn is the seam for others. The peer's proven
// name, never anything it says, decides where its dumps are filed.
//
// The order of a session: HELLO, notes and RAM, the kernel log, which is durable
// before LOGSTORED; then the sender waits until it is let in, sends its plan, is
// told what the store has of it, and sends chunks. Every chunk is decoded and
// compared with the checksum of its raw pages before it is stored, and acknowledged
// when it is durable. A sender that breaks off may come back; when it does not
// within Config.ResumeGrace, what arrived is sealed as a partial dump. One that comes
// back with another plan gets a dump of its own, until it is known which is the better.
//
// Memory is bounded by Config.Memory, whatever the peers send: a part is for
// sessions that say hello or wait, the rest is shared out equally to those let in.
// All of a session's input is treated as hostile; what breaks the protocol ends that
// session, with a code of PROTOCOL.md for the peer and a line in the log, and harms
// nothing that is stored.
//
// A Server may be used by several goroutines.
package receiver
