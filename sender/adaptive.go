package sender

import (
	"sync"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// adaptiveEncoding chooses the encoding of the next chunk: the lightest or the strongest of those that may be used. The strong one sends
// fewer bytes and takes more CPU time, in the sender and in the receiver.
//
// It begins with the light one. When the connection is what limits, it asks for a probe: a worker encodes one chunk both ways. If the
// strong encoding would be faster by the probe, it is used from then on. A probe knows nothing of the receiver. So the strong
// encoding stays only while the connection goes on to take enough bytes: a line takes as many as before, and a receiver that
// cannot follow takes fewer. If the encoders limit then, a faster line would not show, so the light one is tried now and again.
//
// Connection and receiver hold megabytes. What they take tells of an encoding only when all from before it is acknowledged.
type adaptiveEncoding struct {
	mu            sync.Mutex
	light, strong protocol.Encoding
	workers       int
	up            bool // the strong encoding is used
	asked         bool // a probe is wanted

	sum    traffic // since the last decision
	chunks int     // in sum
	queued uint64  // at the last decision
	rate   float64 // bytes per second that the connection took before the last decision
	line   float64 // rate when the strong encoding began
	saves  float64 // bytes of the strong encoding for each byte of the light one, by the last probe

	written, before uint64        // bytes so far, and up to the last change
	clock           time.Duration // sum of all traffic so far
	probeAt, lookAt time.Duration // of clock: no probe, and no try of the light encoding, before
	probePause      time.Duration // until the next probe after one that led to nothing
}

// traffic is what the writer saw of one chunk.
type traffic struct {
	bytes            uint64        // of the chunk, as the window counts them
	queued           uint64        // that the connection has accepted and the peer's kernel does not have; 0 if unknown
	unacked          uint64        // that the receiver has not acknowledged
	network, encoder time.Duration // how long the writer waited for each
}

// Limits of the decisions.
const (
	// Between two decisions: so that neither one slow write counts, nor what a line takes at once when it was idle.
	decideChunks = 4
	decideTime   = 20 * time.Millisecond
	// The connection limits if the writer waits for it so much longer than for the encoders.
	lineFactor = 4
	// What the strong encoding may take of the time of the light one, so that it is not chosen for nothing.
	worthwhile = 0.95
	// The part of its savings that the strong encoding may lose.
	mayLose         = 0.75
	firstProbePause = 250 * time.Millisecond
	lookPause       = 4 * time.Second // until the light encoding is tried
)

// newAdaptiveEncoding chooses between the first and the last of a ladder. workers is how many encode at a time.
func newAdaptiveEncoding(ladder []protocol.Encoding, workers int) *adaptiveEncoding {
	return &adaptiveEncoding{
		light: ladder[0], strong: ladder[len(ladder)-1], workers: workers, probePause: firstProbePause,
	}
}

// next returns the encoding for the next chunk. If probe is true, the caller encodes the chunk with the strong encoding, too, and calls
// probed.
func (a *adaptiveEncoding) next() (with protocol.Encoding, probe bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	probe, a.asked = a.asked, false
	if a.up {
		return a.strong, false
	}
	return a.light, probe
}

// observe adds what the writer saw of one chunk.
func (a *adaptiveEncoding) observe(t traffic) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sum.bytes += t.bytes
	a.sum.network += t.network
	a.sum.encoder += t.encoder
	a.written += t.bytes
	a.clock += t.network + t.encoder
	a.chunks++
	took := a.sum.network + a.sum.encoder
	if a.chunks < decideChunks || took < decideTime || a.light == a.strong {
		return
	}
	sum, had := a.sum, a.sum.bytes+a.queued
	a.sum, a.chunks, a.queued = traffic{}, 0, t.queued
	if a.written < a.before+t.unacked {
		return
	}
	a.rate = float64(had-min(had, t.queued)) / took.Seconds()
	a.decide(sum.network > lineFactor*sum.encoder || t.queued > sum.bytes/2, sum.encoder > sum.network)
}

// decide changes to the light encoding, or asks for a probe. lineLimits and encodersLimit say what the writer waited for. mu is held.
func (a *adaptiveEncoding) decide(lineLimits, encodersLimit bool) {
	switch {
	case a.up && a.rate < a.line*(1-mayLose*(1-a.saves)):
		a.change(false)
		a.putOffProbe()
	case a.up && encodersLimit && !lineLimits && a.clock >= a.lookAt:
		a.change(false)
	case !a.up && lineLimits && a.clock >= a.probeAt:
		a.asked = true
	}
}

func (a *adaptiveEncoding) change(up bool) { a.up, a.before = up, a.written }

func (a *adaptiveEncoding) putOffProbe() {
	a.probeAt = a.clock + a.probePause
	a.probePause *= 4
}

// probed takes the result of a probe: the bytes of one chunk in both encodings, and how long the strong one took.
func (a *adaptiveEncoding) probed(light, strong int, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if light == 0 || a.up {
		return
	}
	now := float64(light) / max(a.rate, 1)
	then := max(float64(strong)/max(a.rate, 1), took.Seconds()/float64(a.workers))
	if then > worthwhile*now {
		a.putOffProbe()
		return
	}
	a.line, a.saves = a.rate, float64(strong)/float64(light)
	a.lookAt = a.clock + lookPause
	a.change(true)
}
