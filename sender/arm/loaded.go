package arm

import (
	"github.com/corehaul/corehaul/sender/arm/kexec"
	"github.com/corehaul/corehaul/sender/arm/reservation"
)

// A loaded is what is known of the loaded capture kernel.
type loaded struct {
	// any is what the kernel says: some image is loaded.
	any bool
	// record describes the image, nil if it is not ours or nothing is loaded.
	record *Record
	// last is our record of an image that is not loaded any more.
	last *Record
	// unfinished means that record is that of an Arm that was killed after it had loaded the image.
	unfinished bool
	// unsure means that an Arm was killed, and that the kernel does not show which of two images is loaded.
	unsure bool
}

// findLoaded finds out what is loaded.
func findLoaded(root string, areas []reservation.Area) (loaded, error) {
	var l loaded
	var err error
	if l.any, err = kexec.Loaded(root); err != nil {
		return l, err
	}
	armed, err := readRecord(root, armedFile)
	if err != nil {
		return l, err
	}
	arming, err := readRecord(root, armingFile)
	if err != nil {
		return l, err
	}
	switch {
	case !l.any:
		l.last = armed
	case arming == nil:
		l.chose(armed, root, areas)
	case arming.isLoaded(root, areas) == yes:
		l.record, l.unfinished = arming, true
	case armed == nil:
		// Nothing of ours was loaded before that Arm, which did not get to the end.
		l.unsure = true
	default:
		l.chose(armed, root, areas)
		l.unsure = l.record != nil && armed.Mark == 0
	}
	return l, nil
}

// chose takes the record unless it is sure that another image is loaded.
func (l *loaded) chose(r *Record, root string, areas []reservation.Area) {
	if r == nil {
		return
	}
	if r.isLoaded(root, areas) == no {
		l.last = r
		return
	}
	l.record = r
}

// settle finishes what an Arm that was killed has left to do: the record of the loaded image becomes that of armedFile. The next Arm writes
// over the other one before it loads, and may fail or be killed then.
func (l *loaded) settle(root string, areas []reservation.Area) error {
	if !l.unfinished {
		return nil
	}
	l.record.Mark = l.record.findMark(root, areas)
	return l.record.write(root, armedFile)
}
