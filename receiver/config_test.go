package receiver

import (
	"testing"

	"github.com/corehaul/corehaul/intake"
)

func TestSplitStaysWithinMemory(t *testing.T) {
	for _, tc := range []struct {
		memory uint64
		active int
		slots  int
	}{
		{MinMemory, 8, 3},
		{256 << 20, 8, 8},
		{256 << 20, 200, 30},
		{64 << 30, 8, 8},
	} {
		cfg := Config{Memory: tc.memory, MaxActive: tc.active}
		s := cfg.split()
		each := s.window + frameBytes + int64(s.workers)*intake.ConverterBytes + writerBytes
		if total := s.hello + int64(s.slots)*each; total > int64(tc.memory) {
			t.Errorf("%d bytes for %d sessions: %d are handed out", tc.memory, s.slots, total)
		}
		if s.window < 2*frameBytes || s.workers < 1 {
			t.Errorf("%d bytes: window %d, workers %d", tc.memory, s.window, s.workers)
		}
		if s.slots > tc.active || s.slots < min(tc.active, tc.slots/2) {
			t.Errorf("%d bytes: %d slots, want about %d", tc.memory, s.slots, tc.slots)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	store := fakeStore{}
	for name, cfg := range map[string]Config{
		"no store":      {},
		"no memory":     {Store: store, Memory: 1 << 20},
		"negative time": {Store: store, ResumeGrace: -1},
		"lzo":           {Store: store, Codec: 2},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Config{Store: store}); err != nil {
		t.Errorf("defaults: %v", err)
	}
}
