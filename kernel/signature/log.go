package signature

import "github.com/corehaul/corehaul/kernel/oops"

// OfLog returns the signature of the crash that a log shows, nil if its kind is not known.
func OfLog(r *oops.Report) *Signature {
	if r == nil || r.Kind == oops.Unknown {
		return nil
	}
	c := classOf(r.Kind)
	if c == fault && r.IP != nil && r.IP.Function == "" {
		c = jump
	}
	if places := culprits(c, logPlaces(r)); len(places) > 0 || c.placeless() {
		return newSignature(c, places)
	}
	s := newSignature(c, []Place{{Function: messageOf(r)}})
	s.Vague = true
	return s
}

// logPlaces are where the CPU was, if the log says so, and the frames of the blamed trace.
func logPlaces(r *oops.Report) (places []Place) {
	if ip := r.IP; ip != nil && ip.Function != "" {
		places = append(places, Place{Function: ip.Function, Module: ip.Module})
	}
	if len(r.Traces) == 0 {
		return places
	}
	for _, l := range r.Traces[0].Places() {
		places = append(places, Place{Function: l.Function, Module: l.Module})
	}
	return places
}

// messageOf is the text of a crash without its numbers: that of the panic, or the title.
func messageOf(r *oops.Report) string {
	if r.PanicLine != "" {
		return oops.PlainText(r.PanicLine)
	}
	return r.Title
}
