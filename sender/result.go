package sender

import (
	"fmt"
	"time"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/protocol"
)

// A Result describes a dump that a receiver has sealed.
type Result struct {
	// Sealed is the receiver's last message.
	protocol.Sealed
	// Reason is why sending ended.
	Reason protocol.Reason
	// ReasonText is why, if Reason is ReasonOther.
	ReasonText string
	// Declined is set if the receiver did not want all pages. DeclinedWhy is its reason, if it gave one.
	Declined    bool
	DeclinedWhy string
	// Known is set if the receiver had sealed the dump before and needed nothing more.
	Known bool
	// Target is where the dump is.
	Target string
	// Lost counts pages that could not be read. LostNotes names the first few.
	Lost      uint64
	LostNotes []string
	// BytesSent counts the bytes on the wire in all sessions.
	BytesSent uint64
	// Sessions counts the attempts to connect.
	Sessions uint64
	Elapsed  time.Duration
}

// String formats r in one line, the last one on the console of a capture kernel.
func (r *Result) String() string {
	stored := fmt.Sprintf("stored as %s on %s", r.ID, r.Target)
	sent := fmt.Sprintf("%s sent in %.1f s, %s", bytesize.Format(r.BytesSent), r.Elapsed.Seconds(), stored)
	switch {
	case r.Known:
		return fmt.Sprintf("dump %s already: %d pages, %s", r.State, r.Pages, stored)
	case r.State == protocol.StateComplete:
		return fmt.Sprintf("dump complete: %d pages, %s", r.Pages, sent)
	case r.State == protocol.StateLogOnly && r.Declined:
		return fmt.Sprintf("dump declined%s: log only, %s", because(r.DeclinedWhy), sent)
	case r.State == protocol.StateLogOnly:
		return "log stored: " + sent
	}
	return fmt.Sprintf("dump partial (%s): %d pages, %d missing, %s", r.why(), r.Pages, r.Missing, sent)
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

func (r *Result) why() string {
	switch {
	case r.Lost > 0:
		return fmt.Sprintf("%d pages unreadable", r.Lost)
	case r.Reason == protocol.ReasonUnreadable:
		return "the dump file is not whole"
	case r.Reason == protocol.ReasonEssential:
		return "the receiver wanted the essential part" + because(r.DeclinedWhy)
	case r.Reason == "":
		return "the receiver wanted no more" + because(r.DeclinedWhy)
	case r.Reason == protocol.ReasonComplete:
		return "pages missing on the receiver"
	case r.ReasonText != "":
		return r.ReasonText
	}
	return string(r.Reason)
}
