package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/stores"
)

// members adds the paths of all members in a JSON value; elements of arrays count as one.
func members(paths map[string]bool, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			members(paths, strings.TrimPrefix(at+"."+name, "."), value)
		}
	case []any:
		if len(v) == 0 {
			paths[at+"[]"] = true
		}
		for _, value := range v {
			members(paths, at+"[]", value)
		}
	default:
		paths[at] = true
	}
}

// TestJSONMembers: scripts read these documents, so no member changes its name or place.
func TestJSONMembers(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	if err := makeStore(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "core.kdump")
	if err := makeFile(file); err != nil {
		t.Fatal(err)
	}
	corehaul(t, "pin", "a", "--reason", "x", "--data", data)
	corehaul(t, "verify", "a", "--data", data)
	titled(t, data, "a")
	manifest := "bytes.log bytes.raw bytes.vmcore crash_time encodings.raw end_time host id machine nodename pages.missing pages.planned " +
		"pages.present pages.zero panic_line peer plan.chunks plan.hash plan.level plan.max_pfn plan.nr_cpus plan.page_size release sha256 start_time state transport version"
	entry := "host id kind manifest." + strings.ReplaceAll(manifest, " ", " manifest.") +
		" path pin.reason pin.time pin.version report_bytes report_of title verification.damaged verification.sealed verification.sha256 verification.time verification.version"
	report := "compared damaged findings[] progress.bytes progress.chunks progress.page_data progress.planned progress.present progress.zero sha256 state"
	for _, tc := range []struct{ args, want string }{
		{"show a", entry},
		{"show " + file, "cpus crash_time dump_level format incomplete machine max_pfn nodename page_size pages path ram_bytes release"},
		{"ls --host web1", "dumps[]." + strings.ReplaceAll(entry, " ", " dumps[].")},
		{"prune --dry-run --max-total 1K", "dry_run kept[].by kept[].bytes kept[].host kept[].id kept[].panic kept[].why removed[] unmet[]"},
		{
			"prune --dry-run --max-age 1ns --trust-clock",
			"dry_run kept[].by kept[].bytes kept[].host kept[].id kept[].panic kept[].why removed[].bytes removed[].host removed[].id removed[].panic removed[].why unmet[]",
		},
		{"verify a", report},
		{"verify --all", "host id report." + strings.ReplaceAll(report, " ", " report.") + " result"},
		{"reindex", "damaged dumps"},
	} {
		paths := map[string]bool{}
		dec := json.NewDecoder(strings.NewReader(corehaulOut(t, append(strings.Fields(tc.args), "--json", "--data", data)...)))
		for dec.More() {
			var v any
			if err := dec.Decode(&v); err != nil {
				t.Fatal(err)
			}
			members(paths, "", v)
		}
		if got := strings.Join(slices.Sorted(maps.Keys(paths)), " "); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.args, got, tc.want)
		}
	}
}

// corehaulOut is corehaul, whatever the exit code.
func corehaulOut(t *testing.T, args ...string) string {
	t.Helper()
	var out, errOut strings.Builder
	err := run(t.Context(), cli.Stdio{Out: &out, Err: &errOut}, args)
	if out.Len() == 0 {
		t.Fatal(fmt.Errorf("%v: %w: %s", args, err, errOut.String()))
	}
	return out.String()
}

// titled stores a report of a dump.
func titled(t *testing.T, data, id string) {
	t.Helper()
	store, err := stores.Open(t.Context(), data, storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := store.Find(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	f := dumpdir.NewStoredReport(&e.Manifest, dumpdir.ReportHead{Kind: "bug", Title: "kernel BUG in foo"}, []byte("{}"), time.Now())
	if err := errors.Join(store.SaveSide(t.Context(), e.Ref, f, &e.Manifest), store.Close()); err != nil {
		t.Fatal(err)
	}
}
