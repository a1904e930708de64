package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/corehaul/corehaul/uts"
)

// control is a message whose payload is one JSON object.
type control interface {
	Message
	// fill sets defaults and makes texts for people printable, before sending.
	fill()
	// check refuses what the protocol does not allow, for sent and received messages.
	check(c *checker)
}

// newControl returns an empty message of a control type, nil for other types.
func newControl(t Type) control {
	switch t {
	case TypeHello:
		return new(Hello)
	case TypeLogEnd:
		return new(LogEnd)
	case TypePlanEnd:
		return new(PlanEnd)
	case TypeFinish:
		return new(Finish)
	case TypeLogStored:
		return new(LogStored)
	case TypeWait:
		return new(Wait)
	case TypeWelcome:
		return new(Welcome)
	case TypePlanOK:
		return new(PlanOK)
	case TypeSealed:
		return new(Sealed)
	case TypeError:
		return new(wireError)
	}
	return nil
}

func appendControl(dst []byte, m control) ([]byte, error) {
	m.fill()
	if err := checkControl(m); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // no browser reads this; people with a packet dump do
	if err := enc.Encode(m); err != nil {
		return nil, Errorf(CodeBadMessage, "%s: %w", m.Type(), err)
	}
	return append(dst, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...), nil
}

func checkControl(m control) error {
	c := checker{what: m.Type()}
	m.check(&c)
	return c.err
}

// decodeControl ignores fields that this version does not know.
func decodeControl(m control, p []byte) error {
	switch p := bytes.TrimLeft(p, " \t\r\n"); {
	case !utf8.Valid(p):
		return Errorf(CodeBadMessage, "%s: not UTF-8", m.Type())
	case len(p) == 0 || p[0] != '{':
		return Errorf(CodeBadMessage, "%s: not a JSON object", m.Type())
	}
	if err := json.Unmarshal(p, m); err != nil {
		if h, ok := m.(*Hello); ok && h.Version > Version {
			return checkControl(h) // a later version may have given a field another shape
		}
		if e, ok := errors.AsType[*Error](err); ok {
			return Errorf(e.Code, "%s: %w", m.Type(), err)
		}
		return Errorf(CodeBadMessage, "%s: %w", m.Type(), err)
	}
	return checkControl(m)
}

func (h *Hello) fill() {
	if h.Version == 0 {
		h.Version = Version
	}
	if h.MaxVersion == 0 {
		h.MaxVersion = max(h.Version, Version)
	}
	h.Tool = CleanText(h.Tool, maxName)
	h.Warnings = cleanAll(h.Warnings)
	for _, s := range h.Uts.Fields() {
		*s = CleanText(*s, uts.MaxLen)
	}
}

func (h *Hello) check(c *checker) {
	if h.Version > Version {
		c.fail(CodeVersion, "version %d; the highest one spoken here is %d", h.Version, Version)
	}
	c.that(h.Version >= 1 && h.MaxVersion >= h.Version, "versions %d to %d", h.Version, h.MaxVersion)
	c.texts("features", h.Features, maxName)
	c.hex("dump_id", h.DumpID, dumpIDLen)
	c.need("tool", h.Tool, maxName)
	c.need("machine", h.Machine, maxName)
	c.that(ValidPageSize(h.PageSize), "page_size %d: not a power of two from %d to %d", h.PageSize, MinPageSize, MaxPageSize)
	c.that(h.MaxPFN > 0, "max_pfn is missing")
	c.atMost("max_pfn", uint64(h.MaxPFN), MaxPFN)
	c.atMost("ram_bytes", h.RAMBytes, maxAddr)
	c.that(h.NrCPUs > 0, "nr_cpus is missing")
	c.atMost("nr_cpus", uint64(h.NrCPUs), MaxCPUs)
	if h.CurrentCPU != nil {
		c.atMost("current_cpu", uint64(*h.CurrentCPU), MaxCPUs)
	}
	for _, s := range h.Uts.Fields() {
		c.text("utsname", *s, uts.MaxLen)
	}
	c.hex("build_id", h.BuildID, -maxBuildID)
	c.that(h.CrashTime >= 0 && h.CrashTime <= maxUnix, "crash_time %d out of range", h.CrashTime)
	c.atMost("level", uint64(h.Level), MaxLevel)
	c.atMost("file_level", uint64(h.FileLevel), MaxLevel)
	c.atMost("encodings", uint64(len(h.Encodings)), maxList)
	c.atMost("deadline_s", h.DeadlineSec, maxSeconds)
	c.texts("warnings", h.Warnings, maxText)
}

const (
	// maxUnix is the last second of the year 9999.
	maxUnix = 253402300799
	// maxSeconds bounds durations on the wire: 100 years, which fits a time.Duration.
	maxSeconds = 100 * 365 * 86400
)

func (m *LogEnd) fill() { m.Error = CleanText(m.Error, maxText) }

func (m *LogEnd) check(c *checker) {
	c.atMost("bytes", m.Bytes, MaxLogBytes)
	c.text("error", m.Error, maxText)
}

func (m *LogStored) fill() {}

func (m *LogStored) check(c *checker) { c.atMost("bytes", m.Bytes, MaxLogBytes) }

func (m *Wait) fill() { m.Reason = CleanText(m.Reason, maxText) }

func (m *Wait) check(c *checker) { c.text("reason", m.Reason, maxText) }

func (m *Welcome) fill() {
	if m.Version == 0 {
		m.Version = Version
	}
	m.Tool, m.Reason = CleanText(m.Tool, maxName), CleanText(m.Reason, maxText)
}

func (m *Welcome) check(c *checker) {
	c.that(m.Version >= 1, "version is missing")
	c.texts("features", m.Features, maxName)
	c.need("tool", m.Tool, maxName)
	c.need("host", m.Host, maxHostName)
	c.that(m.Collect == CollectAll || m.Collect == CollectEssential || m.Collect == CollectLog, "collect is none of all, essential, log")
	c.text("reason", m.Reason, maxText)
	c.that(m.WindowBytes > 0 || m.Collect == CollectLog, "window_bytes is missing")
	c.atMost("encodings", uint64(len(m.Encodings)), maxList)
	c.atMost("heartbeat_s", m.HeartbeatSec, maxSeconds)
	c.atMost("have_chunks", m.HaveChunks, maxSeq+1)
}

func (m *PlanEnd) fill() { m.Warnings = cleanAll(m.Warnings) }

func (m *PlanEnd) check(c *checker) {
	c.that(m.Hash != PlanHash{}, "hash is missing")
	c.atMost("kept", m.Kept, MaxPFN)
	c.atMost("runs", m.Runs, m.Kept)
	c.atMost("chunks", m.Chunks, m.Kept)
	c.atMost("tiers", uint64(len(m.Tiers)), MaxTiers)
	c.texts("warnings", m.Warnings, maxText)
	c.that(m.Codec.Known(), "unknown codec")
	if c.err == nil {
		m.checkTiers(c)
	}
}

// checkTiers checks that the tiers add up and that the essential ones come first.
func (m *PlanEnd) checkTiers(c *checker) {
	pages, chunks, essential := uint64(0), uint64(0), true
	for i, t := range m.Tiers {
		c.need("tier name", t.Name, maxName)
		c.atMost("tier pages", t.Pages, MaxPFN)
		c.atMost("tier chunks", t.Chunks, t.Pages)
		c.that(essential || !t.Essential, "tier %d is essential after one that is not", i)
		pages, chunks, essential = pages+t.Pages, chunks+t.Chunks, t.Essential
	}
	c.that(pages == m.Kept && chunks == m.Chunks, "tiers of %d pages and %d chunks, kept %d and %d", pages, chunks, m.Kept, m.Chunks)
}

// tier returns the tier with the given number, or an empty one beyond the last.
func (m *PlanEnd) tier(n int) Tier {
	if n < len(m.Tiers) {
		return m.Tiers[n]
	}
	return Tier{}
}

func (m *PlanOK) fill() { m.Note = CleanText(m.Note, maxText) }

func (m *PlanOK) check(c *checker) {
	c.that(m.Collect == "" || m.Collect == CollectAll || m.Collect == CollectEssential, "collect is none of all, essential")
	c.text("note", m.Note, maxText)
}

func (m *Finish) fill() { m.Text = CleanText(m.Text, maxText) }

func (m *Finish) check(c *checker) {
	c.need("reason", string(m.Reason), maxName)
	c.text("text", m.Text, maxText)
	c.atMost("lost_pages", m.LostPages, MaxPFN)
}

func (m *Sealed) fill() {
	m.ID, m.Path, m.Reason = CleanText(m.ID, maxText), CleanText(m.Path, maxPath), CleanText(m.Reason, maxText)
}

func (m *Sealed) check(c *checker) {
	c.that(m.State == StateComplete || m.State == StatePartial || m.State == StateLogOnly, "state is none of complete, partial, log-only")
	c.need("id", m.ID, maxText)
	c.text("path", m.Path, maxPath)
	c.text("reason", m.Reason, maxText)
	c.atMost("pages", m.Pages, MaxPFN)
	c.atMost("missing", m.Missing, MaxPFN)
	if m.SHA256 != "" {
		c.hex("sha256", m.SHA256, 64)
	}
}

// wireError is the payload of ERROR.
type wireError struct {
	Code       Code   `json:"code"`
	Text       string `json:"text,omitempty"`
	Hint       string `json:"hint,omitempty"`
	RetryAfter uint64 `json:"retry_after_s,omitempty"`
}

func (m *wireError) Type() Type { return TypeError }

func (m *wireError) fill() {
	m.Text, m.Hint = CleanText(m.Text, maxText), CleanText(m.Hint, maxText)
	m.RetryAfter = min(m.RetryAfter, maxSeconds)
}

func (m *wireError) check(c *checker) {
	c.need("code", string(m.Code), maxName)
	c.text("text", m.Text, maxText)
	c.text("hint", m.Hint, maxText)
	c.atMost("retry_after_s", m.RetryAfter, maxSeconds)
}

// remote returns m as the error of Conn.Read.
func (m *wireError) remote() *Error {
	after := time.Duration(m.RetryAfter) * time.Second //nolint:gosec // at most maxSeconds
	return &Error{Code: m.Code, Text: m.Text, Hint: m.Hint, RetryAfter: after, Remote: true}
}

// wireErrorOf returns err for the peer. Only the text of an Error is sent: other errors may contain paths and
// addresses.
func wireErrorOf(err error) *wireError {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Remote {
		return &wireError{Code: CodeInternal, Text: "internal error"}
	}
	after := max(0, (e.RetryAfter+time.Second-1)/time.Second)
	return &wireError{Code: e.Code, Text: e.Text, Hint: e.Hint, RetryAfter: uint64(after)}
}

func (h *Hello) appendPayload(dst []byte, _ Params) ([]byte, error) { return appendControl(dst, h) }

func (m *LogEnd) appendPayload(dst []byte, _ Params) ([]byte, error) { return appendControl(dst, m) }

func (m *LogStored) appendPayload(dst []byte, _ Params) ([]byte, error) { return appendControl(dst, m) }

func (m *Wait) appendPayload(dst []byte, _ Params) ([]byte, error) { return appendControl(dst, m) }

func (m *Welcome) appendPayload(dst []byte, _ Params) ([]byte, error) { return appendControl(dst, m) }

func (m *PlanEnd) appendPayload(dst []byte, _ Params) ([]byte, error) { return appendControl(dst, m) }

func (m *PlanOK) appendPayload(dst []byte, _ Params) ([]byte, error) { return appendControl(dst, m) }

func (m *Finish) appendPayload(dst []byte, _ Params) ([]byte, error) { return appendControl(dst, m) }

func (m *Sealed) appendPayload(dst []byte, _ Params) ([]byte, error) { return appendControl(dst, m) }

func (m *wireError) appendPayload(dst []byte, _ Params) ([]byte, error) { return appendControl(dst, m) }
