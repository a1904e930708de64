package protocol

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// seedFrames adds every example of PROTOCOL.md and one frame of each type.
func seedFrames(f *testing.F, add func(frame []byte)) {
	f.Helper()
	for _, l := range script(f) {
		add(encodeFrame(f, l.m, exampleParams))
	}
	for _, m := range sampleControls(f) {
		add(encodeFrame(f, m, exampleParams))
	}
	for _, ch := range sampleChunks() {
		if frame := encodeFrame(f, ch, hugeParams); len(frame) < 16<<10 { // large seeds slow the fuzzer down
			add(frame)
		}
	}
}

// FuzzStream feeds bytes to both sides: whatever they are, reading ends with an
// error, within the limits of memory.
func FuzzStream(f *testing.F) {
	var all []byte
	for _, l := range script(f) {
		if l.from == Sender {
			all = append(all, encodeFrame(f, l.m, exampleParams)...)
		}
	}
	f.Add(all)
	f.Add(recorded(f))
	seedFrames(f, func(frame []byte) { f.Add(frame) })
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, side := range []Side{Sender, Receiver} {
			c := NewConn(stream(b), side)
			if side == Sender {
				_ = c.Write(exampleHello()) // so that there is something to answer
				_ = c.NewLogWriter().Close("")
			}
			for {
				m, err := c.Read()
				if (err == nil) == (m == nil) {
					t.Fatalf("%s: got %v and %v", side, m, err)
				}
				if err != nil {
					break
				}
				_ = oblige(c, m) // so that there is more to come
			}
			if cap(c.buf) > maxPlanOK+maxIgnored {
				t.Fatalf("%s holds %d bytes", side, cap(c.buf))
			}
		}
	})
}

// FuzzMessage decodes the payload of every type, with a good frame around it. What
// decodes is encoded again: binary messages to the same bytes, JSON to a text that
// stays the same from then on.
func FuzzMessage(f *testing.F) {
	seedFrames(f, func(frame []byte) { f.Add(frame[2], frame[headerLen:]) })
	for _, frame := range recordedFrames(f) {
		f.Add(frame[2], frame[headerLen:])
	}
	f.Fuzz(func(t *testing.T, typ byte, payload []byte) {
		if _, known := types[Type(typ)]; !known || len(payload) > maxChunk {
			return
		}
		frame := make([]byte, headerLen, headerLen+len(payload))
		frame = append(frame, payload...)
		header{typ: Type(typ), length: uint32(len(payload))}.put(frame, payload)
		m, err := tryFrame(frame, hugeParams)
		if err != nil {
			if m != nil {
				t.Fatalf("got %v with %v", m, err)
			}
			return
		}
		again := encodeFrame(t, m, hugeParams)
		if newControl(Type(typ)) == nil {
			if !bytes.Equal(again, frame) {
				t.Fatalf("%s: % x became % x", Type(typ), frame, again)
			}
			return
		}
		if third := encodeFrame(t, decodeFrame(t, again, hugeParams), hugeParams); !bytes.Equal(third, again) {
			t.Fatalf("%s: %s became %s", Type(typ), again, third)
		}
	})
}

// recordedFrames cuts the recorded session into frames.
func recordedFrames(tb testing.TB) [][]byte {
	tb.Helper()
	var frames [][]byte
	for b := recorded(tb); len(b) > 0; {
		n := headerLen + int(binary.LittleEndian.Uint32(b[4:]))
		frames = append(frames, b[:n])
		b = b[n:]
	}
	return frames
}

func recordedPlan(tb testing.TB) []byte {
	tb.Helper()
	for _, frame := range recordedFrames(tb) {
		if Type(frame[2]) == TypePlan {
			return frame[headerLen:]
		}
	}
	tb.Fatal("no PLAN in the recorded session")
	return nil
}

// FuzzPlan decodes runs in two pieces and encodes them again.
func FuzzPlan(f *testing.F) {
	f.Add(uint16(3), encodeRuns(f, exampleParams, exampleRuns()))
	f.Add(uint16(0), encodeRuns(f, hugeParams, []Run{run(0, MaxPFN-1, 7), run(MaxPFN-1, 1, 0)}))
	f.Add(uint16(9), recordedPlan(f))
	f.Add(uint16(1), binary.AppendUvarint([]byte{0}, 1<<63))
	f.Fuzz(func(t *testing.T, cut uint16, b []byte) {
		n := min(int(cut), len(b))
		d := NewRunDecoder(hugeParams)
		var runs []Run
		keep := func(r Run) error { runs = append(runs, r); return nil }
		if d.Decode(b[:n], keep) != nil || d.Decode(b[n:], keep) != nil {
			return
		}
		if again := encodeRuns(t, hugeParams, runs); !bytes.Equal(again, b) {
			t.Fatalf("% x became % x", b, again)
		}
		if sum := sumOf(t, hugeParams, runs); sum != d.Sum() {
			t.Fatalf("sums %+v and %+v", sum, d.Sum())
		}
	})
}

// TestFuzzSeeds sees that the seeds are there and are what they should be.
func TestFuzzSeeds(t *testing.T) {
	seen := make(map[Type]bool)
	for _, l := range script(t) {
		seen[l.m.Type()] = true
	}
	for _, m := range sampleControls(t) {
		seen[m.Type()] = true
	}
	for typ := range types {
		if !seen[typ] && typ != TypePing && typ != TypePong {
			t.Errorf("no seed of type %s", typ)
		}
	}
}
