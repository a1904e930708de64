package receiver

import (
	"errors"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
)

// withRules gives the rig rules.
func withRules(rules ...admission.Rule) func(*Config) {
	return func(c *Config) { c.Rules = rules }
}

// crashed is newDump of a machine whose function accessed a NULL pointer. All have the same panic line.
func crashed(t *testing.T, seed uint64, function string) *testDump {
	t.Helper()
	d := newDump(t, seed)
	d.log = "[    0.000000] Linux version 6.1.0\n[   10.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000\n" +
		"[   10.000001] Oops: 0002 [#1] PREEMPT SMP NOPTI\n[   10.000002] RIP: 0010:" + function + "+0x11/0x20\n[   10.000003] Call Trace:\n" +
		"[   10.000004]  <TASK>\n[   10.000005]  vfs_write+0xb0/0x3f0\n[   10.000006]  </TASK>\n[   10.000007] ---[ end trace 0 ]---\n" +
		"[   10.000008] Kernel panic - not syncing: Fatal exception\n"
	return d
}

func TestRuleTakesTheLogOnly(t *testing.T) {
	r := newRig(t, withRules(admission.Rule{Name: "rule 1", SameCrash: 1, Then: admission.ActionLog}))
	if sealed := r.peer("web1", crashed(t, 1, "lab_queue_rq")).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("the first one is sealed as %s", sealed.State)
	}
	other := crashed(t, 4, "filemap_lab_read")
	if sealed := r.peer("web1", other).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("another crash with the same panic line is sealed as %s", sealed.State)
	}
	p := r.peer("web1", crashed(t, 2, "lab_queue_rq"))
	p.hello()
	if w := expect[*protocol.Welcome](p); w.Collect != protocol.CollectLog || !strings.Contains(w.Reason, "the same crash is stored 1 times") {
		t.Errorf("asked for %s because %q", w.Collect, w.Reason)
	}
	if sealed := p.finish(protocol.ReasonLogOnly); sealed.State != protocol.StateLogOnly {
		t.Errorf("sealed as %s", sealed.State)
	}
	if sealed := r.peer("web2", crashed(t, 3, "lab_queue_rq")).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("that of another host is sealed as %s", sealed.State)
	}
	if log := r.log.String(); !strings.Contains(log, `msg=admission`) || !strings.Contains(log, `action=log rule="rule 1"`) {
		t.Errorf("the log does not name the rule:\n%s", log)
	}
}

func TestRuleCountsTheFleet(t *testing.T) {
	r := newRig(t, withRules(admission.Rule{Name: "rule 1", SameCrash: 1, SameCrashFrom: admission.ScopeFleet, Then: admission.ActionRefuse}))
	d := crashed(t, 1, "lab_queue_rq")
	r.peer("web1", d).whole()
	p := r.peer("web2", crashed(t, 2, "lab_queue_rq"))
	p.hello()
	_, err := p.wire.Read()
	var told *protocol.Error
	if !errors.As(err, &told) || told.Code != protocol.CodeDeclined || told.Hint == "" || !strings.Contains(told.Text, "the same crash") {
		t.Errorf("got %v, want declined with a hint", err)
	}
	if m := r.stored("web2"); m.State != "log-only" || !strings.Contains(m.Reason, "the same crash") {
		t.Errorf("stored as %s, %q", m.State, m.Reason)
	}
	// The first one is not judged by those that came after it.
	if sealed := r.peer("web1", d).again(); sealed.State != protocol.StateComplete {
		t.Errorf("came back and was sealed as %s", sealed.State)
	}
}

// again comes back with a dump that is complete.
func (p *peer) again() *protocol.Sealed {
	p.t.Helper()
	p.hello()
	return expect[*protocol.Sealed](p)
}

func TestRuleTakesTheEssentialTiers(t *testing.T) {
	r := newRig(t, withRules(admission.Rule{Name: "rule 1", Host: "web*", Then: admission.ActionEssential}))
	p := r.peer("web1", newDump(t, 1))
	p.hello()
	if w := expect[*protocol.Welcome](p); w.Collect != protocol.CollectEssential || w.Reason == "" {
		t.Errorf("asked for %s because %q", w.Collect, w.Reason)
	}
	p.sendPlan()
	if ok := expect[*protocol.PlanOK](p); ok.Collect != protocol.CollectEssential {
		t.Errorf("the plan is answered with %q", ok.Collect)
	}
	p.chunk(0)
	if sealed := p.finish(protocol.ReasonEssential); sealed.State != protocol.StatePartial {
		t.Errorf("sealed as %s", sealed.State)
	}
	if m := r.stored("web1"); !strings.Contains(m.Reason, "rule 1") {
		t.Errorf("reason %q", m.Reason)
	}
}

// TestRuleLetsADumpWait has one dump wait for space, and another pass it.
func TestRuleLetsADumpWait(t *testing.T) {
	var disk *smallDisk
	r := newRig(t, func(c *Config) {
		withDisk(&disk, 1<<20)(c)
		c.MaxActive = 1
		c.Rules = []admission.Rule{{Name: "rule 1", Host: "web*", FreeBelow: 2 << 20, Then: admission.ActionWait}}
	})
	p := r.peer("web1", newDump(t, 1))
	p.hello()
	p.waits("1.000 MiB free, below 2.000 MiB", "rule 1")
	if sealed := r.peer("db1", newDump(t, 2)).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("one that no rule holds is sealed as %s", sealed.State)
	}
	disk.setFree(2 << 30)
	p.plan()
	p.finish(protocol.ReasonCancelled)
}

// TestRuleAnswersAPlanWithoutRoom has plans that do not fit.
func TestRuleAnswersAPlanWithoutRoom(t *testing.T) {
	for action, check := range map[admission.Action]func(*peer){
		admission.ActionLog: func(p *peer) {
			if sealed := expect[*protocol.Sealed](p); sealed.State != protocol.StateLogOnly || !strings.Contains(sealed.Reason, "no room") {
				p.t.Errorf("sealed as %s, %q", sealed.State, sealed.Reason)
			}
		},
		admission.ActionRefuse: func(p *peer) { p.refused(protocol.CodeDeclined) },
	} {
		t.Run(string(action), func(t *testing.T) {
			var disk *smallDisk
			r := newRig(t, func(c *Config) {
				withDisk(&disk, 1000)(c)
				c.Rules = []admission.Rule{{Name: "rule 1", NoRoom: true, Then: action}}
			})
			p := r.peer("web1", newDump(t, 1))
			p.hello()
			expect[*protocol.Welcome](p)
			p.sendPlan()
			check(p)
			r.eventually("it is sealed", func() bool { return r.server.idle() })
			if m := r.stored("web1"); m.State != "log-only" || !strings.Contains(m.Reason, "no room") {
				t.Errorf("stored as %s, %q", m.State, m.Reason)
			}
		})
	}
}

func TestHostsPassOneThatHasItsShare(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxActive, c.MaxHostSessions = 2, 1 })
	first := r.peer("web1", newDump(t, 1))
	first.hello()
	first.plan()
	second := r.peer("web1", newDump(t, 2))
	second.hello()
	second.waits("host web1 may send only 1 dumps at a time")
	if sealed := r.peer("web2", newDump(t, 3)).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	first.finish(protocol.ReasonCancelled)
	second.plan()
	second.finish(protocol.ReasonCancelled)
}

// withLimits gives the rig's store limits.
func withLimits(limits admission.Limits) func(*Config) {
	return func(c *Config) { c.Room = admission.NewRoom(c.Store, limits, c.Log) }
}

func TestHostBytesAreLimited(t *testing.T) {
	r := newRig(t, withLimits(admission.Limits{HostBytes: 1000 << 10}))
	r.peer("web1", newDump(t, 1)).whole()
	p := r.peer("web1", newDump(t, 2))
	p.hello()
	expect[*protocol.Welcome](p)
	p.sendPlan()
	p.waits("host web1 may store 1000.000 KiB", "this dump needs at least 557.609 KiB")
	if sealed := r.peer("web2", newDump(t, 3)).whole(); sealed.State != protocol.StateComplete {
		t.Errorf("sealed as %s", sealed.State)
	}
	if err := r.store.Remove(t.Context(), storage.Ref{Host: "web1", ID: newDump(t, 1).hello.DumpID}, storage.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	expect[*protocol.PlanOK](p)
	p.finish(protocol.ReasonCancelled)
}
