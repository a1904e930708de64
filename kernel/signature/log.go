package signature

import (
	"slices"

	"github.com/corehaul/corehaul/kernel/oops"
)

// OfLog returns the signature of the crash that a log shows, nil if its kind is not known.
func OfLog(r *oops.Report) *Signature {
	if r == nil || r.Kind == oops.Unknown || r.Kind == "" {
		return nil
	}
	c := classOf(r.Kind)
	if c == fault && r.IP != nil && r.IP.Function == "" {
		c = jump
	}
	if places := logCulprits(r, c); len(places) > 0 || c.placeless() {
		return newSignature(c, places)
	}
	s := newSignature(c, []Place{{Function: r.Title}}) // it has the panic message without its numbers
	s.Vague = true
	return s
}

// logCulprits returns the functions of a signature. A trace of which kernel/oops blames nothing is not that of the crash, except below panic().
func logCulprits(r *oops.Report, c class) []Place {
	places := logPlaces(r, c)
	switch {
	case r.Function == "" && c != panicked:
		return nil
	case r.Function == "" || c.inMemory() || c.placeless():
		return culprits(c, places)
	}
	blamed := plain([]Place{{Function: r.Function, Module: r.Module}})
	if i := slices.IndexFunc(plain(places), func(p Place) bool { return len(blamed) > 0 && p.Function == blamed[0].Function }); i >= 0 {
		return withCallers(append(blamed, blamable(c, plain(places)[i+1:])...))
	}
	return blamed
}

// logPlaces are where the CPU was, if the log says so, and the frames of the blamed trace, without the code that reports. Frames that the
// kernel could not prove are none.
func logPlaces(r *oops.Report, c class) (places []Place) {
	if len(r.Traces) > 0 {
		for _, l := range r.Traces[0].Places() {
			places = append(places, Place{Function: l.Function, Module: l.Module})
		}
	}
	ip := r.IP
	if at := interruptOf(places); c == stall && at >= 0 && (ip == nil || reports(oops.PlainName(places[0].Function))) {
		return places[at+1:] // the trace begins in the watchdog
	}
	places = afterReporters(places)
	if c != hungTask && ip != nil && ip.Function != "" {
		places = append([]Place{{Function: ip.Function, Module: ip.Module}}, places...)
	}
	return places
}
