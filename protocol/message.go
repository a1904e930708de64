package protocol

import (
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
)

// Message is one message of the protocol: a pointer to [Hello], [Notes], [RAM],
// [Log], [LogEnd], [Plan], [PlanEnd], [Chunk], [Finish], [LogStored], [Wait],
// [Welcome], [PlanOK], [Ack], [Sealed], [Ping] or [Pong]. ERROR messages are never
// returned as a Message but as an error, see [Conn.Read].
type Message interface {
	// Type returns the message type of the frame header.
	Type() Type
	// appendPayload appends the payload to dst. Values outside the protocol's limits are an error.
	appendPayload(dst []byte, p Params) ([]byte, error)
}

// Params are the facts of a dump that bound its plan and chunks. They travel in HELLO.
type Params struct {
	// PageSize in bytes.
	PageSize uint32
	// MaxPFN is one past the last page frame of the dump (max_mapnr).
	MaxPFN mem.PFN
	// Level is the dump level, 0 to 31.
	Level uint8
}

// Hello is the first message: who crashed, and what the sender can do.
// JSON: every name below is the field's name on the wire.
type Hello struct {
	// Version is the protocol version of all messages up to WELCOME, MaxVersion the highest that the sender speaks.
	// Zero values are filled in by Conn.Write.
	Version    int `json:"version"`
	MaxVersion int `json:"max_version"`
	// Features names optional parts of the protocol that the sender can use; unknown ones are ignored.
	Features []string `json:"features,omitempty"`
	// DumpID names the dump: 32 lower-case hex digits, see [DumpID].
	DumpID string `json:"dump_id"`
	// Tool is the sender's name and version, for people.
	Tool string `json:"tool"`
	// Machine is the ELF machine as uname -m names it: "x86_64", "aarch64", "ppc64le".
	Machine  string  `json:"machine"`
	PageSize uint32  `json:"page_size"`
	MaxPFN   mem.PFN `json:"max_pfn"`
	RAMBytes uint64  `json:"ram_bytes"`
	NrCPUs   uint32  `json:"nr_cpus"`
	// CurrentCPU is the one that panicked; absent when not known.
	CurrentCPU *uint32 `json:"current_cpu,omitempty"`
	// Uts comes from init_uts_ns of the system kernel. It is shown, never trusted; values may be empty.
	Uts uts.Name `json:"utsname"`
	// BuildID of the system kernel in hex, empty when not known.
	BuildID string `json:"build_id,omitempty"`
	// CrashTime is CRASHTIME of VMCOREINFO, else the time in the header of the dump file, in seconds since 1970 UTC; 0 when not known.
	CrashTime int64 `json:"crash_time,omitempty"`
	// PhysBase goes to the kdump sub header; absent when not known.
	PhysBase *uint64 `json:"phys_base,omitempty"`
	// Level is the dump level, 0 to 31.
	Level uint8 `json:"level"`
	// FileLevel is the level at which the file that is sent was dumped itself, when it is a kdump-compressed one.
	FileLevel uint8 `json:"file_level,omitempty"`
	// BigEndian is the byte order of the machine.
	BigEndian bool `json:"big_endian,omitempty"`
	// ExcludedVmemmap: the file that is sent has no struct pages of pages that were left out of it.
	ExcludedVmemmap bool `json:"excluded_vmemmap,omitempty"`
	// Encodings that the sender may use, best first. EncodingNone is always allowed and need not be listed.
	Encodings Encodings `json:"encodings"`
	// DeadlineSec is how long the sender is going to go on, in seconds from now; 0 means for ever.
	DeadlineSec uint64 `json:"deadline_s,omitempty"`
	// Attempt counts the connections of this sender process for this dump from 1 on; for logs.
	Attempt uint64 `json:"attempt,omitempty"`
	// Warnings of the sender so far, each one line for people.
	Warnings []string `json:"warnings,omitempty"`
}

// Params returns the facts of h that bound plan and chunks.
func (h *Hello) Params() Params {
	return Params{PageSize: h.PageSize, MaxPFN: h.MaxPFN, Level: h.Level}
}

// Notes is a piece of the raw PT_NOTE bytes of /proc/vmcore, in order.
// Data of a message read from a Conn is valid until the next Read.
type Notes struct{ Data []byte }

// Log is a piece of the kernel log as text, in order. It is the crashed machine's
// text: it may hold any bytes. Data is valid until the next Read.
type Log struct{ Data []byte }

// LogEnd ends the log and asks for LOGSTORED.
type LogEnd struct {
	// Bytes is the length of all LOG pieces together.
	Bytes uint64 `json:"bytes"`
	// Sum is the XXH3-64 of the whole log.
	Sum Sum64 `json:"xxh3"`
	// Error says why there is no log or only part of it; empty when it is whole.
	Error string `json:"error,omitempty"`
}

// LogStored says that the whole log is durable.
type LogStored struct {
	Bytes uint64 `json:"bytes"`
}

// Wait says that the sender has to wait, with its place in the queue; it may come
// often, and at any time after HELLO. The sender keeps the connection.
type Wait struct {
	// Place in the queue from 1 on, 0 when there is no queue (waiting for space, for a store).
	Place uint64 `json:"place"`
	// Of is the length of the queue, 0 when not told.
	Of uint64 `json:"of,omitempty"`
	// Reason is for people.
	Reason string `json:"reason,omitempty"`
}

// Collect is what the receiver wants of a dump.
type Collect string

// What a receiver may ask for.
const (
	// CollectAll asks for every chunk.
	CollectAll Collect = "all"
	// CollectEssential asks for the tiers marked essential, then FINISH with ReasonEssential.
	CollectEssential Collect = "essential"
	// CollectLog asks for nothing more: the sender sends no plan but FINISH with ReasonLogOnly.
	CollectLog Collect = "log"
)

// Welcome lets the sender go on.
type Welcome struct {
	// Version of all messages from now on, between the sender's two. Conn.Write fills in a zero.
	Version int `json:"version"`
	// Features of the sender's that the receiver accepts.
	Features []string `json:"features,omitempty"`
	// Tool is the receiver's name and version, for people.
	Tool string `json:"tool"`
	// Host is the name under which the dump is filed.
	Host string `json:"host"`
	// Collect is what the receiver wants.
	Collect Collect `json:"collect"`
	// Reason says why it is not all; for people.
	Reason string `json:"reason,omitempty"`
	// WindowBytes is how many bytes of CHUNK payloads may be unacknowledged. One chunk may always be.
	WindowBytes uint64 `json:"window_bytes"`
	// Encodings that the receiver accepts, of those in HELLO. EncodingNone is always accepted.
	Encodings Encodings `json:"encodings"`
	// HeartbeatSec is the longest silence of the sender before it sends PING; 0 means [DefaultHeartbeat].
	HeartbeatSec uint64 `json:"heartbeat_s,omitempty"`
	// Plan is the hash of the plan that the receiver holds for this dump; absent when it holds none.
	Plan *PlanHash `json:"plan,omitempty"`
	// HaveChunks is how many chunks of that plan are durable.
	HaveChunks uint64 `json:"have_chunks,omitempty"`
}

// Plan is a piece of the run-length coded plan, see [RunEncoder]. Data is valid until the next Read.
type Plan struct{ Data []byte }

// PlanEnd ends the plan and asks for PLANOK.
type PlanEnd struct {
	// Hash of the plan, see [PlanSum].
	Hash PlanHash `json:"hash"`
	// Omitted is set when no PLAN was sent because the receiver's WELCOME named this very hash.
	Omitted bool `json:"omitted,omitempty"`
	// Runs, Kept and Chunks are the sums of the plan: runs, pages, chunks.
	Runs   uint64 `json:"runs"`
	Kept   uint64 `json:"kept"`
	Chunks uint64 `json:"chunks"`
	// Tiers in the order in which they are sent; index is the tier number of the runs.
	Tiers []Tier `json:"tiers"`
	// Pages counts the pages of the machine by kind.
	Pages PageCounts `json:"pages"`
	// Codec is the encoding that most pages are going to have, for the header of the dump file.
	Codec Encoding `json:"codec"`
	// Warnings of the plan (keys missing in VMCOREINFO and the like), each one line for people.
	Warnings []string `json:"warnings,omitempty"`
}

// Tier is a part of the plan that is sent before the next one.
type Tier struct {
	// Name is for people: "kernel", "memmap", "cache".
	Name string `json:"name"`
	// Essential tiers are what CollectEssential asks for. They come first.
	Essential bool   `json:"essential,omitempty"`
	Pages     uint64 `json:"pages"`
	Chunks    uint64 `json:"chunks"`
}

// PageCounts counts the pages of the system kernel's RAM by kind. Total is all RAM
// pages, Kept those in the plan; the others count pages left out or not by the level.
type PageCounts struct {
	Total        uint64 `json:"total"`
	Kept         uint64 `json:"kept"`
	Free         uint64 `json:"free,omitempty"`
	Cache        uint64 `json:"cache,omitempty"`
	CachePrivate uint64 `json:"cache_private,omitempty"`
	User         uint64 `json:"user,omitempty"`
	HWPoison     uint64 `json:"hwpoison,omitempty"`
	Offline      uint64 `json:"offline,omitempty"`
}

// PlanOK accepts the plan and says which chunks are not to be sent.
type PlanOK struct {
	// Have are chunks that are durable. It may be a part of the truth, never more.
	Have SeqSet `json:"have"`
	// Collect narrows what WELCOME asked for, now that the size is known; empty means as WELCOME said. Never CollectLog.
	Collect Collect `json:"collect,omitempty"`
	// Note is for people, such as a different plan found for the same dump.
	Note string `json:"note,omitempty"`
}

// Ack names chunks that have become durable since the last ACK (or PLANOK).
type Ack struct {
	// WindowBytes is the new window; 0 leaves it as it is.
	WindowBytes uint64
	Durable     SeqSet
}

// Reason says why a sender stops sending.
type Reason string

// Why a sender sends FINISH. A receiver treats a reason that it does not know as ReasonOther.
const (
	// ReasonComplete: every chunk of the plan was sent.
	ReasonComplete Reason = "complete"
	// ReasonEssential: every chunk that CollectEssential asks for was sent.
	ReasonEssential Reason = "essential"
	// ReasonLogOnly: WELCOME asked for the log only, or the sender was told to send no more.
	ReasonLogOnly Reason = "log-only"
	// ReasonDeadline: the sender's time is up.
	ReasonDeadline Reason = "deadline"
	// ReasonUnreadable: some pages could not be read, all others were sent; when none of the plan is lost, the file that was
	// read is known to lack more than that, and the dump is partial.
	ReasonUnreadable Reason = "unreadable"
	// ReasonCancelled: the sender was told to stop.
	ReasonCancelled Reason = "cancelled"
	// ReasonOther: see the text.
	ReasonOther Reason = "other"
)

// Finish says that nothing more comes and asks for SEALED.
type Finish struct {
	Reason Reason `json:"reason"`
	// Text is for people.
	Text string `json:"text,omitempty"`
	// LostPages counts planned pages that could not be read.
	LostPages uint64 `json:"lost_pages,omitempty"`
}

// State is what became of a dump.
type State string

// The states of SEALED.
const (
	// StateComplete: every planned page is there.
	StateComplete State = "complete"
	// StatePartial: a valid file, with some planned pages missing.
	StatePartial State = "partial"
	// StateLogOnly: the log is stored, and no pages.
	StateLogOnly State = "log-only"
)

// Sealed is the receiver's last word: what is stored, durably. It comes after
// FINISH, or in place of WELCOME for a dump that needs nothing more.
type Sealed struct {
	State State `json:"state"`
	// ID is the receiver's name of the dump, for people and commands.
	ID string `json:"id"`
	// Path of the dump directory on the receiver, empty when it has none to tell.
	Path string `json:"path,omitempty"`
	// Pages stored and Missing of the planned ones.
	Pages   uint64 `json:"pages"`
	Missing uint64 `json:"missing,omitempty"`
	// Bytes is the size of the dump file.
	Bytes uint64 `json:"bytes"`
	// SHA256 of the dump file in lower-case hex; empty when there is none.
	SHA256 string `json:"sha256,omitempty"`
	// Reason is why the receiver wanted no more than it has; empty when the sender ended the dump.
	Reason string `json:"reason,omitempty"`
}

// Ping asks for a Pong with the same token. [Conn.KeepAlive] sends both.
type Ping struct{ Token uint64 }

// Pong answers a Ping.
type Pong struct{ Token uint64 }

// Type of each message, see the constants.
func (*Hello) Type() Type     { return TypeHello }
func (*Notes) Type() Type     { return TypeNotes }
func (*RAM) Type() Type       { return TypeRAM }
func (*Log) Type() Type       { return TypeLog }
func (*LogEnd) Type() Type    { return TypeLogEnd }
func (*Plan) Type() Type      { return TypePlan }
func (*PlanEnd) Type() Type   { return TypePlanEnd }
func (*Chunk) Type() Type     { return TypeChunk }
func (*Finish) Type() Type    { return TypeFinish }
func (*LogStored) Type() Type { return TypeLogStored }
func (*Wait) Type() Type      { return TypeWait }
func (*Welcome) Type() Type   { return TypeWelcome }
func (*PlanOK) Type() Type    { return TypePlanOK }
func (*Ack) Type() Type       { return TypeAck }
func (*Sealed) Type() Type    { return TypeSealed }
func (*Ping) Type() Type      { return TypePing }
func (*Pong) Type() Type      { return TypePong }
