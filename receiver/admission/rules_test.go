package admission

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/storage"
)

func TestRuleIsChecked(t *testing.T) {
	for name, r := range map[string]Rule{
		"no action":             {Host: "a"},
		"unknown action":        {Then: "dance"},
		"bad pattern":           {Host: "[", Then: ActionLog},
		"negative count":        {SameCrash: -1, Then: ActionLog},
		"scope without a count": {SameCrashFrom: ScopeHost, Then: ActionLog},
		"unknown scope":         {SameCrash: 1, SameCrashFrom: "rack", Then: ActionLog},
		"time without a count":  {Within: 1, Then: ActionLog},
	} {
		if r.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := (&Rule{Host: "web-*", SameCrash: 3, SameCrashFrom: ScopeFleet, Within: 1, Then: ActionRefuse}).Check(); err != nil {
		t.Error(err)
	}
}

// TestFirstRuleThatMatchesCounts asks about one dump.
func TestFirstRuleThatMatchesCounts(t *testing.T) {
	log, wait, all := ActionLog, ActionWait, ActionAll
	for _, tc := range []struct {
		name  string
		rules []Rule
		c     Crash
		want  Action
		says  string
	}{
		{"none", nil, Crash{}, all, ""},
		{"host", []Rule{{Host: "db-*", Then: ActionRefuse}, {Host: "web-*", Then: log}, {Then: wait}}, Crash{}, log, "host web-1 (rule 1)"},
		{"enough is free", []Rule{{FreeBelow: 1 << 20, Then: log}}, Crash{}, all, ""},
		{"too little is free", []Rule{{FreeBelow: 3 << 20, Then: log}}, Crash{}, log, "2.000 MiB free, below 3.000 MiB (rule 0)"},
		{"both have to hold", []Rule{{FreeBelow: 3 << 20, Host: "db", Then: log}}, Crash{}, all, ""},
		{"room is there", []Rule{{NoRoom: true, Then: log}}, Crash{}, all, ""},
		{"no room", []Rule{{NoRoom: true, Then: log}}, Crash{NoRoom: true}, log, "no room"},
		{"a dump with pages is kept", []Rule{{Then: ActionRefuse}, {Then: wait}, {Then: log}, {Then: ActionEssential}}, Crash{HasPages: true}, ActionEssential, "(rule 3)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i := range tc.rules {
				tc.rules[i].Name = "rule " + string(rune('0'+i))
			}
			room := NewRoom(disk{free: 2 << 20}, Limits{}, slog.New(slog.DiscardHandler))
			rules := NewRules(tc.rules, room, slog.New(slog.DiscardHandler))
			tc.c.Ref = storage.Ref{Host: "web-1", ID: "a"}
			d := rules.Decide(t.Context(), &tc.c)
			if d.Action != tc.want || !strings.Contains(d.Reason, tc.says) {
				t.Errorf("got %s, %q, want %s, %q", d.Action, d.Reason, tc.want, tc.says)
			}
		})
	}
}

// disk is a store that has only free space.
type disk struct {
	storage.Store
	free uint64
}

func (disk) Subscribe(storage.Event) (dumps <-chan storage.Ref, cancel func()) { return nil, func() {} }

func (d disk) Space(context.Context) (storage.Space, error) {
	return storage.Space{Total: 1 << 40, Free: d.free}, nil
}

// TestSetReplacesTheRules has dumps sealed while no rule compares crashes.
func TestSetReplacesTheRules(t *testing.T) {
	d := newDiary(t)
	rs := d.rules()
	repeats := []Rule{{Name: "repeats", SameCrash: 1, Then: ActionLog}}
	decide := func(c *Crash, want Action) {
		t.Helper()
		if got := rs.Decide(t.Context(), c); got.Action != want {
			t.Errorf("got %s (%s), want %s", got.Action, got.Reason, want)
		}
	}
	d.dump("a", 1, faultIn(driver), allChunks)
	second := d.dump("a", 2, faultIn(driver), 0)
	decide(second, ActionAll)
	rs.Set(repeats)
	decide(second, ActionLog)
	rs.Set(nil)
	d.dump("b", 3, faultIn(driver), allChunks)
	late := d.dump("b", 4, faultIn(driver), 0)
	decide(late, ActionAll)
	rs.Set(repeats)
	decide(late, ActionLog)
	if rs.Len() != 1 {
		t.Errorf("%d rules", rs.Len())
	}
}
