// Package receiver runs the receiving side of the protocol (protocol/PROTOCOL.md) for
// many senders at once, and stores their dumps in a storage.Store.
//
// A session runs over any net.Conn whose peer a transport has authenticated. TLS is built
// in (ServeTLS). Other transports call HandleConn. The proven name of the peer decides
// where its dumps are stored, never anything that the peer says.
//
// The order of a session: HELLO, notes and RAM, then the kernel log, which is durable
// before LOGSTORED. Then the sender waits until it is admitted, sends its plan, hears what
// the store has of it, and sends chunks. Every chunk is decoded and compared with the
// checksum of its raw pages before it is stored. It is acknowledged when it is durable.
//
// A sender whose session breaks off may come back. If it does not within
// Config.ResumeGrace, the dump is sealed as partial. A sender that comes back with another
// plan gets a second dump, until it is known which one is better.
//
// Config.Memory bounds the memory, whatever the peers send. A part is for sessions that
// are not admitted, and admitted sessions share the rest equally. All input is hostile. A
// violation of the protocol ends the session, with a code of PROTOCOL.md for the peer and
// a line in the log, and harms no stored data.
//
// A Server is safe for concurrent use.
package receiver
