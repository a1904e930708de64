// Package protocol is the wire between a sender in a capture kernel and a receiver: frames, typed messages and their
// codecs. PROTOCOL.md beside this file is the specification. If the two differ, the document is right.
//
// The package transfers and checks bytes. It opens no connections, keeps no session state except the order of
// messages, and knows neither dump files nor kernel memory. It works over any reliable byte stream: TLS, an SSH
// channel, a pair of pipes.
//
// All decoders are safe for hostile input: every length is compared with a named limit before an allocation or a
// loop, nothing panics, and a decoder that returns an error returns no message. Strings for consoles or file names
// have no control characters.
//
// A [Conn] has one reading goroutine and any number of writing ones. All other types are plain values for one
// goroutine at a time.
//
// Not supported: datagram transports, compression of whole frames, page sizes other than 4 KiB to 64 KiB, frame
// numbers of 2^40 and above.
package protocol

// Version is the protocol version that this package speaks.
const Version = 1

// Limits of the protocol, the same for every implementation (PROTOCOL.md, "Limits").
const (
	// MinPageSize and MaxPageSize bound the page size in bytes; it is a power of two.
	MinPageSize = 4 << 10
	MaxPageSize = 64 << 10
	// MaxPFN is one past the highest frame number: 52 bits of physical address in 4 KiB pages.
	MaxPFN = 1 << 40
	// ChunkBytes is the size of the raw pages of a full chunk.
	ChunkBytes = 1 << 20
	// MaxTiers is the number of tiers that a plan may have.
	MaxTiers = 8
	// MaxLevel is the highest dump level.
	MaxLevel = 31
	// MaxCPUs is twice what any supported kernel can be built for (x86: CONFIG_NR_CPUS_RANGE_END, 8192).
	MaxCPUs = 16 << 10
	// MaxNotesBytes bounds all NOTES together: up to 524 bytes for each CPU (ppc64) and one page of VMCOREINFO. A sender
	// leaves out the largest notes of a dump that has more.
	MaxNotesBytes = 8 << 20
	// MaxRAMRanges bounds the ranges of all RAM messages together.
	MaxRAMRanges = 64 << 10
	// MaxLogBytes bounds all LOG together: twice the largest ring of CONFIG_LOG_BUF_SHIFT (2^25), for the prefixes. A sender
	// shortens a longer log (log_buf_len= may be 2^31) in its middle.
	MaxLogBytes = 64 << 20
	// MaxSeqRanges bounds the ranges of one [SeqSet] on the wire.
	MaxSeqRanges = 16 << 10
	// PieceBytes is the largest payload of a message that carries one piece of a longer text (NOTES, LOG, PLAN, RAM).
	PieceBytes = 64 << 10
)

// ChunkPages returns the number of pages in a full chunk, or 0 for a page size
// outside the limits.
func ChunkPages(pageSize uint32) uint32 {
	if !ValidPageSize(pageSize) {
		return 0
	}
	return ChunkBytes / pageSize
}

// ValidPageSize reports whether n is a power of two within the limits.
func ValidPageSize(n uint32) bool {
	return n >= MinPageSize && n <= MaxPageSize && n&(n-1) == 0
}
