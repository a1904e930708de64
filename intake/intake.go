package intake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// meta converts HELLO. The caller adds host, arrival times and transport.
func meta(h *protocol.Hello) dumpdir.Meta {
	meta := dumpdir.Meta{
		ID: h.DumpID, Release: h.Uts.Release, Nodename: h.Uts.Nodename, Machine: h.Machine, BuildID: h.BuildID, Sender: h.Tool,
	}
	if h.CrashTime > 0 {
		meta.CrashTime = time.Unix(h.CrashTime, 0).UTC()
	}
	return meta
}

// facts converts HELLO, without notes and RAM. came replaces an unknown crash time, codec a compressor that HELLO
// does not name.
func facts(h *protocol.Hello, came time.Time, codec kdumpfile.Codec) dumpdir.Facts {
	f := dumpdir.Facts{
		Utsname: h.Uts.ForHeader(), Time: came, PageSize: int(h.PageSize), MaxPFN: h.MaxPFN, NrCPUs: h.NrCPUs,
		DumpLevel: h.Level | h.FileLevel, Codecs: codecs(h, codec), BigEndian: h.BigEndian, ExcludedVmemmap: h.ExcludedVmemmap,
	}
	if h.CrashTime > 0 {
		f.Time = time.Unix(h.CrashTime, 0).UTC()
	}
	if h.CurrentCPU != nil {
		f.CurrentCPU = *h.CurrentCPU
	}
	if h.PhysBase != nil {
		f.PhysBase = *h.PhysBase
	}
	return f
}

// codecs is the compressor for the header: the sender's first choice, if its pages are stored unchanged. Readers use
// each page's own flags.
func codecs(h *protocol.Hello, codec kdumpfile.Codec) uint32 {
	for _, e := range h.Encodings {
		switch e {
		case protocol.EncodingSnappyPage:
			return uint32(kdumpfile.Snappy)
		case protocol.EncodingZstdPage:
			return uint32(kdumpfile.Zstd)
		}
	}
	return uint32(codec)
}

// CheckPlan refuses a plan without pages for a machine that has RAM. Senders keep the kernel image at every dump
// level, so a sender that keeps nothing does not understand the machine. Its empty dump would count as complete.
func CheckPlan(m *protocol.PlanEnd, ram []mem.Range) error {
	if m.Kept > 0 {
		return nil
	}
	bytes := uint64(0)
	for _, r := range ram {
		bytes += r.Len()
	}
	if bytes == 0 {
		return nil
	}
	e := protocol.Errorf(protocol.CodePlanMismatch, "the plan has no pages, the machine has %d bytes of RAM", bytes)
	e.Hint = "the log is stored; send the dump with a later version of corehaul-send, or with --level 0"
	return e
}

// PlanEnd converts PLANEND for the journal.
func PlanEnd(m *protocol.PlanEnd) dumpdir.PlanEnd {
	p := &m.Pages
	return dumpdir.PlanEnd{
		Hash: dumpdir.PlanHash(m.Hash), Chunks: m.Chunks, Pages: m.Kept,
		Classes: map[string]uint64{
			"total": p.Total, "kept": p.Kept, "free": p.Free, "cache": p.Cache, "cache_private": p.CachePrivate,
			"user": p.User, "hwpoison": p.HWPoison, "offline": p.Offline, dumpdir.EssentialPages: essentialPages(m.Tiers),
		},
	}
}

func essentialPages(tiers []protocol.Tier) (sum uint64) {
	for _, t := range tiers {
		if t.Essential {
			sum += t.Pages
		}
	}
	return sum
}

// have returns the durable chunks, or as many of them as a message may name.
func have(w *dumpdir.Writer) protocol.SeqSet {
	var set protocol.SeqSet
	for _, r := range w.Have() {
		if set.Add(r.First, r.Last) != nil {
			break // the sender sends the others again; they are recognised then
		}
	}
	return set
}

// ack acknowledges durable chunks, in as many messages as needed.
func ack(done []chunk.SeqRange, write func(*protocol.Ack) error) error {
	var set protocol.SeqSet
	for _, r := range done {
		err := set.Add(r.First, r.Last)
		if errors.Is(err, protocol.CodeTooLarge) {
			if err := write(&protocol.Ack{Durable: set}); err != nil {
				return err
			}
			set.Reset()
			err = set.Add(r.First, r.Last)
		}
		if err != nil {
			return err
		}
	}
	if set.Empty() {
		return nil
	}
	return write(&protocol.Ack{Durable: set})
}

// Seal seals the dump after FINISH. The present pages decide its state, with one exception: if the sender says
// unreadable although it could read all pages of its plan, its file lacks more than that, and the dump is partial.
func Seal(ctx context.Context, w *dumpdir.Writer, f *protocol.Finish, reason string) (dumpdir.Result, error) {
	if f.Reason == protocol.ReasonUnreadable && f.LostPages == 0 {
		return w.SealPartial(ctx, reason)
	}
	return w.Seal(ctx, reason)
}

// Reason says why pages are missing after FINISH, if any are.
func Reason(f *protocol.Finish) string {
	reason := map[protocol.Reason]string{
		protocol.ReasonComplete:   "the sender left out pages of its plan",
		protocol.ReasonEssential:  "only essential pages were asked for",
		protocol.ReasonLogOnly:    "only the log was asked for",
		protocol.ReasonDeadline:   "the sender's deadline passed",
		protocol.ReasonUnreadable: "pages could not be read",
		protocol.ReasonCancelled:  "the sender was told to stop",
	}[f.Reason]
	switch {
	case reason == "":
		reason = "the sender stopped"
	case f.Reason == protocol.ReasonUnreadable && f.LostPages == 0:
		reason = "the sent file is not complete"
	}
	if f.Text != "" {
		reason += ": " + f.Text
	}
	if f.LostPages > 0 {
		reason += fmt.Sprintf(" (%d pages unreadable)", f.LostPages)
	}
	return reason
}

// sealed is the SEALED message for the dump id in dir.
func sealed(id, dir string, res *dumpdir.Result) *protocol.Sealed {
	return &protocol.Sealed{
		State: protocol.State(res.State), ID: id, Path: dir, Pages: res.Progress.Present, Missing: res.Progress.Missing(),
		Bytes: uint64(max(res.Progress.Bytes, 0)), SHA256: res.SHA256,
	}
}
