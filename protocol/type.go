package protocol

import "fmt"

// Type is the message type in a frame header.
type Type uint8

// Message types. 0x01 to 0x3f go from sender to receiver, 0x41 to 0x7f from receiver to sender, 0x81 to 0xbf both
// ways. Numbers are never reused.
const (
	TypeHello   Type = 0x01
	TypeNotes   Type = 0x02
	TypeRAM     Type = 0x03
	TypeLog     Type = 0x04
	TypeLogEnd  Type = 0x05
	TypePlan    Type = 0x06
	TypePlanEnd Type = 0x07
	TypeChunk   Type = 0x08
	TypeFinish  Type = 0x09

	TypeLogStored Type = 0x41
	TypeWait      Type = 0x42
	TypeWelcome   Type = 0x43
	TypePlanOK    Type = 0x44
	TypeAck       Type = 0x45
	TypeSealed    Type = 0x46

	TypeError Type = 0x81
	TypePing  Type = 0x82
	TypePong  Type = 0x83
)

// Payload limits in bytes, by kind of message.
const (
	maxControl = 64 << 10
	// maxPlanOK has room for MaxSeqRanges ranges of two 13-digit numbers.
	maxPlanOK = 512 << 10
	// maxAck is the fixed part and MaxSeqRanges ranges of two varints.
	maxAck = ackFixedLen + 2 + 2*10*MaxSeqRanges
	// maxChunk is a chunk of 256 extents and 256 page records around ChunkBytes.
	maxChunk = ChunkBytes + 16<<10
	// maxIgnored bounds a message of unknown type that is skipped.
	maxIgnored = 64 << 10
	pingLen    = 8
)

// typeInfo describes one message type.
type typeInfo struct {
	name  string
	limit uint32
	from  sides
}

// sides is a set of Side bits.
type sides uint8

const (
	fromSender   = sides(1 << Sender)
	fromReceiver = sides(1 << Receiver)
	fromBoth     = fromSender | fromReceiver
)

var types = map[Type]typeInfo{
	TypeHello:     {"HELLO", maxControl, fromSender},
	TypeNotes:     {"NOTES", PieceBytes, fromSender},
	TypeRAM:       {"RAM", PieceBytes, fromSender},
	TypeLog:       {"LOG", PieceBytes, fromSender},
	TypeLogEnd:    {"LOGEND", maxControl, fromSender},
	TypePlan:      {"PLAN", PieceBytes, fromSender},
	TypePlanEnd:   {"PLANEND", maxControl, fromSender},
	TypeChunk:     {"CHUNK", maxChunk, fromSender},
	TypeFinish:    {"FINISH", maxControl, fromSender},
	TypeLogStored: {"LOGSTORED", maxControl, fromReceiver},
	TypeWait:      {"WAIT", maxControl, fromReceiver},
	TypeWelcome:   {"WELCOME", maxControl, fromReceiver},
	TypePlanOK:    {"PLANOK", maxPlanOK, fromReceiver},
	TypeAck:       {"ACK", maxAck, fromReceiver},
	TypeSealed:    {"SEALED", maxControl, fromReceiver},
	TypeError:     {"ERROR", maxControl, fromBoth},
	TypePing:      {"PING", pingLen, fromBoth},
	TypePong:      {"PONG", pingLen, fromBoth},
}

// String returns the name of t in PROTOCOL.md.
func (t Type) String() string {
	if info, ok := types[t]; ok {
		return info.name
	}
	return fmt.Sprintf("type %#02x", uint8(t))
}

// Side is one end of a connection.
type Side uint8

// The two ends of a connection.
const (
	Sender Side = iota
	Receiver
)

// String returns "sender" or "receiver".
func (s Side) String() string {
	if s == Receiver {
		return "receiver"
	}
	return "sender"
}
