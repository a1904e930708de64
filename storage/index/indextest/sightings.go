package indextest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/index"
)

// testSightings: pages of any length give every dump once, in one order, as the entries say.
func testSightings(t *testing.T, open func() index.Index) {
	t.Helper()
	ix := open()
	log, memory := &dumpdir.Signature{ID: "00000000000000aa", Coarse: "00000000000000cc"}, &dumpdir.Signature{ID: "00000000000000bb", Coarse: "00000000000000cc"}
	vague := &dumpdir.Signature{ID: "00000000000000dd", Coarse: "00000000000000cc", Vague: true}
	for i, s := range []dumpdir.Signatures{{}, {Log: log}, {Log: log, Memory: memory}, {Log: log, Memory: log}, {Log: vague, Memory: memory}, {Log: vague}, {Log: log, Memory: vague}} {
		e := entry(fmt.Sprintf("h%d", i%2), fmt.Sprint(i), dumpdir.StatePartial)
		at := begin.Add(time.Duration(i/3) * time.Millisecond)
		e.Manifest.CrashTime, e.Manifest.Release, e.Manifest.PanicLine, e.Signatures = &at, "6.1.0", "panic", s
		if i > 3 {
			e.Title = "title"
		}
		put(t, ix, e)
	}
	at := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Millisecond) }
	sighting := func(host, id string, when time.Time, signature, linked string, vague bool) storage.Sighting {
		s := storage.Sighting{Ref: storage.Ref{Host: host, ID: id}, At: when, State: dumpdir.StatePartial, Release: "6.1.0", PanicLine: "panic"}
		if id > "3" {
			s.Title = "title"
		}
		s.Signature, s.Linked, s.Vague = signature, linked, vague
		return s
	}
	want := []storage.Sighting{
		sighting("h0", "6", at(2), log.ID, "", false),
		sighting("h1", "5", at(1), vague.ID, "", true),
		sighting("h1", "3", at(1), log.ID, "", false),
		sighting("h0", "4", at(1), memory.ID, "", false),
		sighting("h1", "1", at(0), log.ID, "", false),
		sighting("h0", "2", at(0), log.ID, memory.ID, false),
		sighting("h0", "0", at(0), "", "", false),
	}
	for limit := 1; limit <= len(want)+1; limit++ {
		var got []storage.Sighting
		var after *storage.Sighting
		for {
			page, err := ix.Sightings(t.Context(), after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("%d dumps, %v", len(page), err)
			}
			if len(page) == 0 {
				break
			}
			got, after = append(got, page...), &page[len(page)-1]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", limit, diff)
		}
	}
}
