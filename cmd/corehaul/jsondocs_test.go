package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/cmd/internal/clitest"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/signature"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/watch"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/groups"
	"github.com/corehaul/corehaul/storage/reports"
	"github.com/corehaul/corehaul/storage/retention"
	"github.com/corehaul/corehaul/storage/scrub"
	"github.com/corehaul/corehaul/triage"
)

// jsonDocs are the documents of this program. Where a command prints one of two, or lines of two kinds, the second one is in Objects alone.
var jsonDocs = clitest.JSONDocs{
	Page: filepath.Join("..", "..", "docs", "json.md"),
	Part: "corehaul",
	Commands: map[string]any{
		"corehaul ls": listing{}, "corehaul show": dumpDetails{}, "corehaul groups": groupListing{}, "corehaul group show": groups.Group{},
		"corehaul report": triage.Report{}, "corehaul bt": []triage.Backtrace{}, "corehaul ps": []triage.Task{}, "corehaul mods": []triage.Module{},
		"corehaul sys": triage.System{}, "corehaul status": serverStatus{}, "corehaul serve": checkResult{}, "corehaul reload": reloadResult{}, "corehaul verify": dumpdir.Report{}, "corehaul prune": retention.Report{},
		"corehaul reindex": storage.ReindexReport{}, "corehaul import": importLine{}, "corehaul version": versionDoc{},
		"corehaul pin": doneLine{}, "corehaul unpin": doneLine{}, "corehaul rm": doneLine{},
		"corehaul group note": groupChanged{}, "corehaul group ticket": groupChanged{}, "corehaul group mute": groupChanged{}, "corehaul group unmute": groupChanged{}, "corehaul group resolve": groupChanged{},
		"corehaul group reopen": groupChanged{}, "corehaul group merge": groupChanged{}, "corehaul group split": groupChanged{}, "corehaul group undo": groupChanged{},
		"corehaul ca init": caMade{}, "corehaul ca issue": identityMade{}, "corehaul known-hosts": hostKeys{},
	},
	Objects: map[string]any{
		"listing":             listing{},
		"check":               checkResult{},
		"reload":              reloadResult{},
		"problem":             problemDocument{},
		"changed setting":     change{},
		"dump":                listedDump{},
		"manifest":            dumpdir.Manifest{},
		"plan":                dumpdir.ManifestPlan{},
		"page counts":         dumpdir.PageCounts{},
		"byte counts":         dumpdir.ByteCounts{},
		"pin":                 dumpdir.Pin{},
		"verification":        dumpdir.Verification{},
		"finding":             dumpdir.Finding{},
		"signatures":          dumpdir.Signatures{},
		"signature":           dumpdir.Signature{},
		"shown dump":          dumpDetails{},
		"kept file":           dumpdir.KeptFile{},
		"group of a dump":     memberDocument{},
		"dump file":           machine.Description{},
		"group listing":       groupListing{},
		"group":               groups.Group{},
		"reference":           storage.Ref{},
		"remark":              groups.Text{},
		"mute":                groups.Mute{},
		"resolution":          groups.Resolution{},
		"regression":          groups.Regression{},
		"change":              groups.Change{},
		"report":              triage.Report{},
		"report signatures":   triage.Signatures{},
		"report signature":    signature.Signature{},
		"system":              triage.System{},
		"taint":               oops.Taint{},
		"taint flag":          oops.TaintFlag{},
		"crash":               triage.Crash{},
		"backtrace":           triage.Backtrace{},
		"frame":               triage.Frame{},
		"inlined call":        triage.Inlined{},
		"register":            triage.Register{},
		"module":              triage.Module{},
		"log report":          oops.Report{},
		"location":            oops.Location{},
		"log register":        oops.Register{},
		"log module":          oops.Module{},
		"trace":               oops.Trace{},
		"log frame":           oops.Frame{},
		"exception":           oops.Exception{},
		"task":                triage.Task{},
		"server":              serverStatus{},
		"session":             receiver.SessionStatus{},
		"vanished sender":     receiver.GoneStatus{},
		"space":               receiver.SpaceStatus{},
		"memory":              receiver.MemoryStatus{},
		"limits":              receiver.LimitStatus{},
		"totals":              receiver.Totals{},
		"report queue":        reports.Status{},
		"watched directory":   watch.Status{},
		"verification report": dumpdir.Report{},
		"progress":            dumpdir.Progress{},
		"verified dump":       scrub.Outcome{},
		"pruning":             retention.Report{},
		"pruned dump":         retention.ReportedDump{},
		"reindexing":          storage.ReindexReport{},
		"imported dump":       importLine{},
		"import summary":      importCount{},
		"version":             versionDoc{},
		"changed dump":        doneLine{},
		"changed group":       groupChanged{},
		"authority":           caMade{},
		"identity":            identityMade{},
		"host keys":           hostKeys{},
	},
}

func TestJSONDocs(t *testing.T) {
	jsonDocs.Check(t, newRoot(cli.Stdio{}))
}

// TestJSONIsAsDescribed compares what commands print with their documents.
func TestJSONIsAsDescribed(t *testing.T) {
	data, other := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "data")
	if err := makeStore(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"pin a --data", "ls --data", "show a --data", "groups --data", "verify a --data", "prune --dry-run --max-total 1K --data", "reindex --data",
		"report a --data", "unpin a --data", "ca issue web-1 -o " + filepath.Join(t.TempDir(), "id.pem") + " --ca", "version",
	} {
		args := strings.Fields(line)
		switch args[len(args)-1] {
		case "--data":
			args = append(args, data)
		case "--ca":
			ca := filepath.Join(other, "ca")
			jsonDocs.CheckOutput(t, "corehaul ca init", corehaulOut(t, "ca", "init", "--json", "--ca", ca))
			args = append(args, ca)
		}
		command := "corehaul " + args[0]
		if args[0] == "ca" {
			command += " " + args[1]
		}
		jsonDocs.CheckOutput(t, command, corehaulOut(t, append(args, "--json")...))
	}
}
