package sender

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore"
)

// greet sends what comes before the receiver's first answer: HELLO, the notes, the RAM ranges and the log.
func (s *session) greet(ctx context.Context) error {
	s.meter.setState("sending the log")
	hello := s.hello
	hello.Attempt = s.attempt
	if d, ok := s.stop.Deadline(); ok {
		hello.DeadlineSec = uint64(max(time.Until(d), time.Second) / time.Second)
	}
	if err := s.write(&hello); err != nil {
		return err
	}
	if err := s.writeFacts(); err != nil {
		return err
	}
	w := s.conn.NewLogWriter()
	reason := ""
	left, err := s.src.WriteLog(ctx, waitingWriter{s, w})
	switch {
	case err != nil:
		reason = "the kernel log cannot be read: " + err.Error()
	case left > 0:
		reason = fmt.Sprintf("the kernel log is longer than %d bytes: %d of its middle are left out", protocol.MaxLogBytes, left)
	}
	if reason != "" {
		s.logOnce(reason)
	}
	defer s.stall.start(s.soon)()
	return w.Close(reason)
}

func (s *session) writeFacts() error {
	defer s.stall.start(s.soon)()
	if err := s.conn.WriteNotes(s.src.info.Notes); err != nil {
		return err
	}
	return s.conn.WriteRAM(s.ram)
}

// waitingWriter runs the stall timer during writes to the receiver, but not while the sender reads the log.
type waitingWriter struct {
	s *session
	w io.Writer
}

func (w waitingWriter) Write(p []byte) (int, error) {
	defer w.s.stall.start(w.s.soon)()
	return w.w.Write(p)
}

// newHello describes the crashed machine. Unknown fields stay zero.
func (j *job) newHello() protocol.Hello {
	info := j.src.info
	facts := machine.FactsOf(info, j.src.kernel)
	h := protocol.Hello{
		DumpID: j.src.dumpID(j.opts.MachineID),
		Tool:   j.opts.Tool, Machine: vmcore.MachineName(info.Machine, info.ByteOrder),
		PageSize: uint32(info.PageSize), MaxPFN: info.MaxPFN,
		NrCPUs: uint32(min(facts.NrCPUs, protocol.MaxCPUs)),
		Uts:    facts.Utsname, Level: uint8(j.opts.Level), FileLevel: uint8(max(facts.DumpLevel, 0)),
		BigEndian: facts.BigEndian, ExcludedVmemmap: facts.ExcludedVmemmap, PhysBase: facts.PhysBase,
		Encodings: protocol.Encodings(j.ladder), Warnings: wireWarnings(j.src.warnings),
	}
	if cpu := facts.CurrentCPU; cpu >= 0 && cpu <= protocol.MaxCPUs {
		current := uint32(cpu)
		h.CurrentCPU = &current
	}
	if h.Tool == "" {
		h.Tool = "corehaul-send"
	}
	if h.Machine == "" {
		h.Machine = cmp.Or(protocol.CleanText(h.Uts.Machine, maxMachine), "unknown")
	}
	for _, r := range j.ram {
		h.RAMBytes += r.Len()
	}
	if id, ok := info.VMCOREINFO.String("BUILD-ID"); ok && hexDigits(id) {
		h.BuildID = id
	}
	if t := facts.CrashTime; t.Unix() > 0 && t.Year() <= maxYear {
		h.CrashTime = t.Unix()
	}
	return h
}

// hexDigits reports whether s is a valid build ID on the wire: up to 64 bytes in lower-case hexadecimal.
func hexDigits(s string) bool {
	if len(s)%2 != 0 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// These limits keep HELLO valid whatever the dump file says. A refused HELLO would mean no dump.
const (
	maxMachine     = 64
	maxYear        = 9999
	maxWarnings    = 16
	maxWarningText = 256
)

// wireWarnings returns the first warnings, cut so that they always fit a message.
func wireWarnings(list []string) []string {
	var short []string
	for _, w := range list[:min(len(list), maxWarnings)] {
		short = append(short, protocol.CleanText(w, maxWarningText))
	}
	if more := len(list) - len(short); more > 0 {
		short = append(short, fmt.Sprintf("and %d more", more))
	}
	return short
}

// mergeRAM joins ranges that touch, so that the list is short and strictly ascending.
func mergeRAM(ranges []mem.Range) []mem.Range {
	var list []mem.Range
	for _, r := range ranges {
		if r.Len() == 0 {
			continue
		}
		if n := len(list) - 1; n >= 0 && r.Start <= list[n].End {
			list[n].End = max(list[n].End, r.End)
			continue
		}
		list = append(list, r)
	}
	return list
}
