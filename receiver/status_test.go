package receiver

import (
	"testing"
	"time"
)

// TestStatusOfVanishedSender shows a dump whose sender is gone, until when it waits, and that it does not wait any more once the sender is back.
func TestStatusOfVanishedSender(t *testing.T) {
	r := newRig(t, func(c *Config) { c.ResumeGrace = time.Hour })
	d := newDump(t, 3)
	p := r.peer("web1", d)
	p.hello()
	p.plan()
	p.chunk(0)
	p.acked(0)
	before := time.Now()
	p.gone(r)
	gone := r.server.Status(t.Context()).Gone
	if len(gone) != 1 || gone[0].Host != "web1" || gone[0].Pages == 0 || gone[0].Pages >= gone[0].Planned {
		t.Fatalf("got %+v, want the dump with a part of its pages", gone)
	}
	if g := gone[0]; g.Since.Before(before.Add(-time.Minute)) || g.Until.Sub(g.Since) != time.Hour {
		t.Errorf("it waits from %v to %v", g.Since, g.Until)
	}
	p = r.peer("web1", d)
	p.hello()
	if gone := r.server.Status(t.Context()).Gone; len(gone) != 0 {
		t.Errorf("the sender is back, and still missed: %+v", gone)
	}
}

func TestLeftMsec(t *testing.T) {
	for _, tc := range []struct {
		rate           float64
		planned, pages uint64
		want           int64
	}{
		{0, 100, 10, 0}, {-1, 100, 10, 0}, {2, 100, 100, 0}, {2, 0, 10, 0}, {2, 100, 99, 500}, {1e-9, 100, 0, 0}, {1000, 1 << 40, 0, 0}, {1 << 20, 1 << 30, 0, 1024_000},
	} {
		if got := leftMsec(tc.rate, tc.planned, tc.pages); got != tc.want {
			t.Errorf("%+v: got %d", tc, got)
		}
	}
}
