package groups_test

import (
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/groups"
	"github.com/corehaul/corehaul/storage/index/sqlite"
	"github.com/corehaul/corehaul/storage/stores"
)

// Size of the store that is measured.
const (
	benchDumps  = 10000
	benchGroups = 500
	benchHosts  = 100
)

// benchEntry is a dump of it. Its manifest is as long as one of a real dump.
func benchEntry(i int) storage.Entry {
	at := time.Unix(1700000000+int64(i)*60, 0).UTC()
	host, id := fmt.Sprintf("host%02d", i%benchHosts), fmt.Sprintf("%08x%024x", i, i)
	sig := &dumpdir.Signature{ID: fmt.Sprintf("%016x", i%benchGroups+1<<20), Coarse: fmt.Sprintf("%016x", 1), Frames: []string{"null-dereference", "ext4_writepages [ext4]", "do_writepages"}}
	return storage.Entry{
		Ref: storage.Ref{Host: host, ID: id}, Path: filepath.Join("dumps", host, at.Format(dumpdir.TimeLayout)+"-"+id[:dumpdir.ShortID]),
		Title: "BUG: unable to handle kernel NULL pointer dereference in ext4_writepages", Kind: "null-dereference",
		Manifest: dumpdir.Manifest{
			Version: 1, ID: id, Host: host, State: dumpdir.StateComplete, Release: fmt.Sprintf("6.1.0-%d-amd64", i%40), StartTime: at, CrashTime: &at,
			PanicLine: "BUG: kernel NULL pointer dereference, address: 0000000000000010", SHA256: fmt.Sprintf("%064x", i), Nodename: host,
			Encodings: map[string]uint64{"snappy": 123456, "raw": 4567, "zero": 1 << 20}, Plan: &dumpdir.ManifestPlan{Level: 31, PageSize: 4096},
		},
		Signatures: dumpdir.Signatures{Log: sig, Memory: sig},
	}
}

// benchStore makes the index of a store, and the names of its dumps.
func benchStore(b *testing.B) (dir string, store storage.Store) {
	b.Helper()
	dir = b.TempDir()
	entries := make([]storage.Entry, benchDumps)
	for i := range entries {
		entries[i] = benchEntry(i)
		if err := os.MkdirAll(filepath.Join(dir, entries[i].Path), 0o750); err != nil {
			b.Fatal(err)
		}
	}
	ix, err := sqlite.Open(b.Context(), filepath.Join(dir, "index.db"))
	if err != nil {
		b.Fatal(err)
	}
	if err := ix.Rebuild(b.Context(), entries, time.Now()); err != nil {
		b.Fatal(err)
	}
	if err := ix.Close(); err != nil {
		b.Fatal(err)
	}
	store, err = stores.Open(b.Context(), dir, storage.OpenOptions{ReadOnly: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	return dir, store
}

// BenchmarkGroups is what "groups" asks of a store of 10,000 dumps in 500 groups.
func BenchmarkGroups(b *testing.B) {
	_, store := benchStore(b)
	for b.Loop() {
		gs, err := groups.Collect(b.Context(), store, &groups.State{}, storage.Filter{}, time.Now())
		if err != nil || len(gs.All) != benchGroups {
			b.Fatal(len(gs.All), err)
		}
	}
}

// BenchmarkMembers is what "ls --group" asks, before it opens the dumps of the group.
func BenchmarkMembers(b *testing.B) {
	_, store := benchStore(b)
	for b.Loop() {
		gs, err := groups.Collect(b.Context(), store, &groups.State{}, storage.Filter{}, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		members, err := gs.Members(b.Context(), store, gs.All[7])
		if err != nil || len(members) != benchDumps/benchGroups {
			b.Fatal(len(members), err)
		}
	}
}

// BenchmarkPlainSQL is the peer: the same figures by one statement, without links, merges and splits.
func BenchmarkPlainSQL(b *testing.B) {
	dir, _ := benchStore(b)
	db, err := sql.Open("sqlite", filepath.Join(dir, "index.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for b.Loop() {
		if n := plainGroups(b, db); n != benchGroups {
			b.Fatal(n)
		}
	}
}

// plainGroups returns the number of groups that the statement of the peer gives.
func plainGroups(b *testing.B, db *sql.DB) (n int) {
	b.Helper()
	rows, err := db.QueryContext(b.Context(), `SELECT signature, count(*), min(at_ms), max(at_ms), group_concat(DISTINCT host), group_concat(DISTINCT release), max(id)
		FROM dump GROUP BY signature ORDER BY max(at_ms) DESC`)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // only read
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	return n
}
