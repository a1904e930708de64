package e2e

import (
	"encoding/json"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/signature"
	"github.com/corehaul/corehaul/triage"
)

// TestSignaturesOfBuilds compares panics on two builds of 6.1, two hosts and two CPUs: at one place they have one signature, from the
// log and from memory, and at two places they have two.
func TestSignaturesOfBuilds(t *testing.T) {
	t.Parallel()
	places := map[string]string{} // what crashed, by each signature
	for _, s := range lab.Rebuilds() {
		first, again := buildsReport(t, lab.Scenario{Kernel: "6.1", Crash: s.Crash}), buildsReport(t, s)
		buildsDiffer(t, first, again)
		want := first.Signatures.Log
		for what, got := range map[string]*signature.Signature{
			"the log of the first build": want, "the memory of the first build": first.Signatures.Memory,
			"the log of the other build": again.Signatures.Log, "the memory of the other build": again.Signatures.Memory,
		} {
			switch {
			case got == nil || want == nil || got.Vague:
				t.Fatalf("%s: the signature of %s is %+v", s.Crash, what, got)
			case got.ID != want.ID || got.Coarse != want.Coarse:
				t.Errorf("%s: the signature of %s is of %q, that of the log of the first build of %q", s.Crash, what, got.Frames, want.Frames)
			}
		}
		for _, id := range []string{want.ID, want.Coarse} {
			if other := places[id]; other != "" {
				t.Errorf("%s and %s share the signature %s", other, s.Crash, id)
			}
			places[id] = s.Crash
		}
	}
	if len(places) < 4 {
		t.Errorf("%d signatures, want two fine and two coarse ones at least", len(places))
	}
}

// buildsReport makes the report of a panic.
func buildsReport(t *testing.T, s lab.Scenario) *triage.Report {
	t.Helper()
	c, err := lab.Panic(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := judgesRun(t, 0, "corehaul", "report", "--json", c.Dump)
	r := new(triage.Report)
	if err := json.Unmarshal([]byte(out), r); err != nil {
		t.Fatal(err)
	}
	if len(r.Unread) > 0 || r.System.BuildID == "" || r.Crash.CPU == nil || *r.Crash.CPU != s.CrashCPU {
		t.Fatalf("%s: unread %q, build %q, crash %+v", s.Name(), r.Unread, r.System.BuildID, r.Crash)
	}
	return r
}

// buildsDiffer wants two hosts, builds and CPUs, and two boots, by the task that crashed and where the kernel put it.
func buildsDiffer(t *testing.T, a, b *triage.Report) {
	t.Helper()
	for what, two := range map[string][2]string{
		"nodename": {a.System.Nodename, b.System.Nodename}, "release": {a.System.Release, b.System.Release},
		"version": {a.System.Version, b.System.Version}, "build id": {a.System.BuildID, b.System.BuildID},
		"address of the task": {a.Crash.Task, b.Crash.Task},
	} {
		if two[0] == two[1] || two[0] == "" || two[1] == "" {
			t.Errorf("%s: %q and %q", what, two[0], two[1])
		}
	}
	if *a.Crash.CPU == *b.Crash.CPU {
		t.Errorf("both crashed on CPU %d", *a.Crash.CPU)
	}
}
