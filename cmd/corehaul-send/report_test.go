package main

import (
	"testing"
	"time"

	"github.com/corehaul/corehaul/sender"
)

func TestLiveLine(t *testing.T) {
	p := sender.Progress{
		State: "sending", Tier: "kernel", Pages: 1234567, Planned: 5678901, Rate: 85 << 20, Left: 130 * time.Second, BytesSent: 1 << 30,
		Elapsed: 12340 * time.Millisecond,
	}
	for columns, want := range map[int]string{
		0:   "sending: 1234567 of 5678901 pages (21%), 85.0 MiB/s, 2m10s left, kernel, 1.0 GiB sent in 12.3 s",
		200: "sending: 1234567 of 5678901 pages (21%), 85.0 MiB/s, 2m10s left, kernel, 1.0 GiB sent in 12.3 s",
		80:  "sending 21%, 85.0 MiB/s, 2m10s left",
		50:  "sending 21%, 85.0 MiB/s, 2m10s left",
		20:  "sending 21%, 85.0 …",
		1:   "…",
	} {
		if got := liveLine(p, columns); got != want {
			t.Errorf("%d columns: got %q, want %q", columns, got, want)
		}
	}
	p = sender.Progress{State: "waiting for the receiver", Place: 3, Of: 10}
	if got, want := liveLine(p, 43), "waiting for the receiver, place 3 of 10"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
