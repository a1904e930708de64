package protocol

import (
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
)

// Message is one message of the protocol: a pointer to [Hello], [Notes], [RAM], [Log], [LogEnd], [Plan], [PlanEnd],
// [Chunk], [Finish], [LogStored], [Wait], [Welcome], [PlanOK], [Ack], [Sealed], [Ping] or [Pong]. [Conn.Read] returns
// ERROR messages as errors.
type Message interface {
	// Type returns the message type of the frame header.
	Type() Type
	// appendPayload appends the payload to dst. Values outside the protocol's limits are an error.
	appendPayload(dst []byte, p Params) ([]byte, error)
}

// Params are the facts of HELLO that bound plan and chunks.
type Params struct {
	// PageSize in bytes.
	PageSize uint32
	// MaxPFN is one past the last page frame of the dump (max_mapnr).
	MaxPFN mem.PFN
	// Level is the dump level, 0 to 31.
	Level uint8
}

// Hello is the first message: facts about the crashed machine, and the abilities of the sender. JSON names are the
// names on the wire.
type Hello struct {
	// Version is the protocol version of all messages up to WELCOME, MaxVersion the highest version of the sender.
	// Conn.Write replaces zeros.
	Version    int `json:"version"`
	MaxVersion int `json:"max_version"`
	// Features names optional parts of the protocol that the sender supports; unknown ones are ignored.
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
	// CurrentCPU is the CPU that panicked; absent if unknown.
	CurrentCPU *uint32 `json:"current_cpu,omitempty"`
	// Uts is init_uts_ns of the system kernel. It is shown, never trusted; values may be empty.
	Uts uts.Name `json:"utsname"`
	// BuildID of the system kernel in hex; empty if unknown.
	BuildID string `json:"build_id,omitempty"`
	// CrashTime is CRASHTIME of VMCOREINFO, else the time in the header of the dump file, in seconds since 1970 UTC;
	// 0 if unknown.
	CrashTime int64 `json:"crash_time,omitempty"`
	// PhysBase is phys_base for the kdump sub header; absent if unknown.
	PhysBase *uint64 `json:"phys_base,omitempty"`
	// Level is the dump level, 0 to 31.
	Level uint8 `json:"level"`
	// FileLevel is the dump level of the file that is sent, if it is kdump-compressed.
	FileLevel uint8 `json:"file_level,omitempty"`
	// BigEndian is the byte order of the machine.
	BigEndian bool `json:"big_endian,omitempty"`
	// ExcludedVmemmap: the file that is sent lacks the struct pages of its excluded pages.
	ExcludedVmemmap bool `json:"excluded_vmemmap,omitempty"`
	// Encodings that the sender may use, best first. EncodingNone is always allowed and need not be listed.
	Encodings Encodings `json:"encodings"`
	// DeadlineSec is how long the sender will continue, in seconds from now; 0 means for ever.
	DeadlineSec uint64 `json:"deadline_s,omitempty"`
	// Attempt counts the connections of this sender process for this dump, from 1; for logs.
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

// Log is a piece of the kernel log as text, in order. It may contain any bytes. Data is valid until the next Read.
type Log struct{ Data []byte }

// LogEnd ends the log and asks for LOGSTORED.
type LogEnd struct {
	// Bytes is the length of all LOG pieces together.
	Bytes uint64 `json:"bytes"`
	// Sum is the XXH3-64 of the whole log.
	Sum Sum64 `json:"xxh3"`
	// Error says why the log is missing or incomplete; empty if it is complete.
	Error string `json:"error,omitempty"`
}

// LogStored says that the whole log is durable.
type LogStored struct {
	Bytes uint64 `json:"bytes"`
}

// Wait says that the sender has to wait, with its place in the queue. It may come often, at any time after HELLO. The
// sender keeps the connection.
type Wait struct {
	// Place in the queue, from 1; 0 if the sender waits for something else (space, a store).
	Place uint64 `json:"place"`
	// Of is the length of the queue; 0 if unknown.
	Of uint64 `json:"of,omitempty"`
	// Reason is for people.
	Reason string `json:"reason,omitempty"`
}

// Collect is the part of a dump that the receiver wants.
type Collect string

// Values of Collect.
const (
	// CollectAll asks for every chunk.
	CollectAll Collect = "all"
	// CollectEssential asks for the tiers marked essential, then FINISH with ReasonEssential.
	CollectEssential Collect = "essential"
	// CollectLog asks for nothing more: the sender sends no plan, and FINISH with ReasonLogOnly.
	CollectLog Collect = "log"
)

// Welcome lets the sender go on.
type Welcome struct {
	// Version of all later messages, within the sender's two. Conn.Write replaces a zero.
	Version int `json:"version"`
	// Features of the sender that the receiver accepts.
	Features []string `json:"features,omitempty"`
	// Tool is the receiver's name and version, for people.
	Tool string `json:"tool"`
	// Host is the name under which the dump is filed.
	Host string `json:"host"`
	// Collect is the part that the receiver wants.
	Collect Collect `json:"collect"`
	// Reason says why it is not everything; for people.
	Reason string `json:"reason,omitempty"`
	// WindowBytes is the limit of unacknowledged bytes of CHUNK payloads. One chunk is always allowed.
	WindowBytes uint64 `json:"window_bytes"`
	// Encodings of HELLO that the receiver accepts. EncodingNone is always accepted.
	Encodings Encodings `json:"encodings"`
	// HeartbeatSec is the sender's longest silence before a PING; 0 means [DefaultHeartbeat].
	HeartbeatSec uint64 `json:"heartbeat_s,omitempty"`
	// Plan is the hash of the receiver's plan for this dump; absent if it has none.
	Plan *PlanHash `json:"plan,omitempty"`
	// HaveChunks is the number of durable chunks of that plan.
	HaveChunks uint64 `json:"have_chunks,omitempty"`
}

// Plan is a piece of the run-length coded plan, see [RunEncoder]. Data is valid until the next Read.
type Plan struct{ Data []byte }

// PlanEnd ends the plan and asks for PLANOK.
type PlanEnd struct {
	// Hash of the plan, see [PlanSum].
	Hash PlanHash `json:"hash"`
	// Omitted says that no PLAN was sent because WELCOME named this hash.
	Omitted bool `json:"omitted,omitempty"`
	// Runs, Kept and Chunks are the totals of the plan: runs, pages, chunks.
	Runs   uint64 `json:"runs"`
	Kept   uint64 `json:"kept"`
	Chunks uint64 `json:"chunks"`
	// Tiers in send order; the index is the tier number of the runs.
	Tiers []Tier `json:"tiers"`
	// Pages counts the pages of the machine by kind.
	Pages PageCounts `json:"pages"`
	// Codec is the encoding of most pages, for the header of the dump file.
	Codec Encoding `json:"codec"`
	// Warnings of the plan (such as missing keys of VMCOREINFO), each one line for people.
	Warnings []string `json:"warnings,omitempty"`
}

// Tier is a part of the plan that is sent before the next one.
type Tier struct {
	// Name is for people: "kernel", "memmap", "cache".
	Name string `json:"name"`
	// Essential tiers are those of CollectEssential. They come first.
	Essential bool   `json:"essential,omitempty"`
	Pages     uint64 `json:"pages"`
	Chunks    uint64 `json:"chunks"`
}

// PageCounts counts the pages of the system kernel's RAM by kind. Total is all pages, Kept those in the plan. The
// others count pages of a kind, excluded or not.
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

// PlanOK accepts the plan and names the chunks that need not be sent.
type PlanOK struct {
	// Have are durable chunks. It may lack some of them.
	Have SeqSet `json:"have"`
	// Collect narrows WELCOME's, now that the size is known; empty means no change. Never CollectLog.
	Collect Collect `json:"collect,omitempty"`
	// Note is for people, for example about another plan of the same dump.
	Note string `json:"note,omitempty"`
}

// Ack names chunks that became durable since the last ACK or PLANOK.
type Ack struct {
	// WindowBytes is the new window; 0 means no change.
	WindowBytes uint64
	Durable     SeqSet
}

// Reason says why a sender stops sending.
type Reason string

// Reasons of FINISH. A receiver treats an unknown reason as ReasonOther.
const (
	// ReasonComplete: every chunk of the plan was sent.
	ReasonComplete Reason = "complete"
	// ReasonEssential: every chunk that CollectEssential asks for was sent.
	ReasonEssential Reason = "essential"
	// ReasonLogOnly: WELCOME asked for the log only, or the sender was told to send no more.
	ReasonLogOnly Reason = "log-only"
	// ReasonDeadline: the sender's deadline has passed.
	ReasonDeadline Reason = "deadline"
	// ReasonUnreadable: some pages could not be read, and all others were sent. If no page of the plan is lost, the
	// file that was read lacks more than that, and the dump is partial.
	ReasonUnreadable Reason = "unreadable"
	// ReasonCancelled: the sender was told to stop.
	ReasonCancelled Reason = "cancelled"
	// ReasonOther: see the text.
	ReasonOther Reason = "other"
)

// Finish says that the sender sends nothing more, and asks for SEALED.
type Finish struct {
	Reason Reason `json:"reason"`
	// Text is for people.
	Text string `json:"text,omitempty"`
	// LostPages counts planned pages that could not be read.
	LostPages uint64 `json:"lost_pages,omitempty"`
}

// State is the state of a sealed dump.
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

// Sealed is the receiver's last message: what is stored durably. It comes after FINISH, or instead of WELCOME for a
// dump that needs nothing more.
type Sealed struct {
	State State `json:"state"`
	// ID is the receiver's name for the dump, for people and commands.
	ID string `json:"id"`
	// Path of the dump directory on the receiver; may be empty.
	Path string `json:"path,omitempty"`
	// Pages stored and Missing of the planned ones.
	Pages   uint64 `json:"pages"`
	Missing uint64 `json:"missing,omitempty"`
	// Bytes is the size of the dump file.
	Bytes uint64 `json:"bytes"`
	// SHA256 of the dump file in lower-case hex; empty if there is none.
	SHA256 string `json:"sha256,omitempty"`
	// Reason says why the receiver wanted no more pages; empty if the sender ended the dump.
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
