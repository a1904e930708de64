package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
)

// diary is a store of dumps that crashed one after the other.
type diary struct {
	storage.Store
	t      *testing.T
	open   *dumpdir.Writer // of a dump that arrives
	listed atomic.Int64
}

func newDiary(t *testing.T) *diary {
	t.Helper()
	s, err := local.Open(t.Context(), t.TempDir(), storage.OpenOptions{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &diary{Store: s, t: t}
}

func (d *diary) List(ctx context.Context, f storage.Filter) ([]storage.Entry, error) {
	d.listed.Add(1)
	return d.Store.List(ctx, f)
}

// faultIn is the log of a machine whose function accessed a NULL pointer. All such logs have the same panic line.
func faultIn(function string) string {
	return fmt.Sprintf(`[    0.000000] Linux version 6.1.0-test
[   12.000001] BUG: kernel NULL pointer dereference, address: 0000000000000000
[   12.000002] #PF: supervisor write access in kernel mode
[   12.000003] #PF: error_code(0x0002) - not-present page
[   12.000004] Oops: 0002 [#1] PREEMPT SMP NOPTI
[   12.000005] CPU: 1 PID: 77 Comm: writer Not tainted 6.1.0-test #1
[   12.000006] RIP: 0010:%s+0x11/0x20
[   12.000007] Call Trace:
[   12.000008]  <TASK>
[   12.000009]  vfs_write+0xb0/0x3f0
[   12.000010]  ksys_write+0x6b/0xf0
[   12.000011]  do_syscall_64+0x55/0xb0
[   12.000012]  </TASK>
[   12.000013] ---[ end trace 0000000000000000 ]---
[   12.000014] Kernel panic - not syncing: Fatal exception
`, function)
}

// placeless is the log of a machine whose crash may have any reason.
const placeless = "[    0.000000] Linux version 6.1.0-test\n[   12.000001] Kernel panic - not syncing: NMI: Not continuing\n" +
	"[   12.000002] CPU: 0 PID: 77 Comm: writer Not tainted 6.1.0-test #1\n[   12.000003] Call Trace:\n[   12.000004]  <NMI>\n" +
	"[   12.000005]  dump_stack_lvl+0x48/0x60\n[   12.000006]  panic+0x114/0x2f0\n[   12.000007]  nmi_panic+0x3e/0x40\n[   12.000008]  </NMI>\n"

const (
	driver    = "lab_queue_rq"
	pageCache = "filemap_lab_read"
)

var firstCrash = time.Now().Add(-1000 * time.Hour).Truncate(time.Second)

// came is when the n-th dump came: an hour after the one before.
func came(n int) time.Time { return firstCrash.Add(time.Duration(n) * time.Hour) }

// The number of chunks of a dump. Two are essential.
const (
	allChunks       = 100 // or fewer
	essentialChunks = 2
)

// begin creates the n-th dump with its log, a plan, and the first chunks.
func (d *diary) begin(host string, n int, log string, chunks int) (*dumpdir.Writer, *Crash) {
	d.t.Helper()
	m := dumpdirtest.NewMachine(uint64(n), 40, 8)
	m.Meta.ID = fmt.Sprintf("%08x%024x", n, n)
	m.Meta.Host, m.Meta.StartTime, m.Meta.PanicLine = host, came(n), "BUG: kernel NULL pointer dereference, address: 0000000000000000"
	for i := range essentialChunks {
		for _, e := range m.Chunks[i].Extents {
			m.End.Classes[dumpdir.EssentialPages] += e.Count
		}
	}
	w, err := d.Create(d.t.Context(), m.Meta)
	if err == nil && log != "" {
		err = w.StoreLog(strings.NewReader(log))
	}
	if err == nil && chunks > 0 {
		err = m.SetPlan(w)
	}
	for i := range min(chunks, len(m.Chunks)) {
		if err == nil {
			err = w.PutChunk(&m.Chunks[i])
		}
	}
	if err == nil {
		_, err = w.Commit()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return w, &Crash{Ref: storage.Ref{Host: host, ID: m.Meta.ID}, PanicLine: m.Meta.PanicLine, LogBytes: int64(len(log)), Began: m.Meta.StartTime}
}

// dump stores the n-th dump and seals it.
func (d *diary) dump(host string, n int, log string, chunks int) *Crash {
	d.t.Helper()
	w, c := d.begin(host, n, log, chunks)
	if _, err := w.Seal(d.t.Context(), "test"); err != nil {
		d.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		d.t.Fatal(err)
	}
	return c
}

// save gives a dump a side file.
func (d *diary) save(ref storage.Ref, make func(*dumpdir.Manifest) dumpdir.SideFile) {
	d.t.Helper()
	e, err := d.Find(d.t.Context(), ref.String())
	if err == nil {
		err = d.SaveSide(d.t.Context(), ref, make(&e.Manifest), &e.Manifest)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *diary) rules(list ...Rule) *Rules {
	for i := range list {
		list[i].Name = fmt.Sprintf("rule %d", i+1)
		list[i].Then = ActionLog
	}
	rs := NewRules(list, NewRoom(d, Limits{}, slog.Default()), slog.New(slog.DiscardHandler))
	d.t.Cleanup(rs.forget)
	return rs
}

// TestWhatCountsAsTheSameCrash has one dump before another one of the same host, and a rule that then takes only the log.
func TestWhatCountsAsTheSameCrash(t *testing.T) {
	const all, essential = allChunks, essentialChunks
	remove := func(d *diary, c *Crash) {
		if err := d.Remove(d.t.Context(), c.Ref, storage.RemoveOptions{}); err != nil {
			d.t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		first  func(d *diary) *Crash
		later  func(d *diary, c *Crash) // after the first question
		second string                   // its log; empty: as the first one's
		want   bool
	}{
		"complete":                 {first: func(d *diary) *Crash { return d.dump("a", 1, faultIn(driver), all) }, want: true},
		"essential pages":          {first: func(d *diary) *Crash { return d.dump("a", 1, faultIn(driver), essential) }, want: true},
		"cut off":                  {first: func(d *diary) *Crash { return d.dump("a", 1, faultIn(driver), essential-1) }},
		"only a log":               {first: func(d *diary) *Crash { return d.dump("a", 1, faultIn(driver), 0) }},
		"another function":         {first: func(d *diary) *Crash { return d.dump("a", 1, faultIn(driver), all) }, second: faultIn(pageCache)},
		"another host":             {first: func(d *diary) *Crash { return d.dump("b", 1, faultIn(driver), all) }},
		"no trace in the first":    {first: func(d *diary) *Crash { return d.dump("a", 1, "Kernel panic - not syncing: x\n", all) }, second: "Kernel panic - not syncing: x\n"},
		"its place is chance":      {first: func(d *diary) *Crash { return d.dump("a", 1, placeless, all) }, second: placeless},
		"no crash in the log":      {first: func(d *diary) *Crash { return d.dump("a", 1, "all is well\n", all) }, second: "all is well\n"},
		"no log of the second":     {first: func(d *diary) *Crash { return d.dump("a", 1, faultIn(driver), all) }, second: "-"},
		"removed after a question": {first: func(d *diary) *Crash { return d.dump("a", 1, faultIn(driver), all) }, later: remove},
		"removed by somebody else": {
			first: func(d *diary) *Crash { return d.dump("a", 1, faultIn(driver), all) },
			later: func(d *diary, c *Crash) {
				e, err := d.Find(d.t.Context(), c.Ref.String())
				if err != nil || os.RemoveAll(e.Path) != nil {
					d.t.Error(err)
				}
			},
		},
		"found to be damaged": {
			first: func(d *diary) *Crash { return d.dump("a", 1, faultIn(driver), all) },
			later: func(d *diary, c *Crash) {
				d.save(c.Ref, func(m *dumpdir.Manifest) dumpdir.SideFile {
					return &dumpdir.Verification{Version: dumpdir.SideFileVersion, Time: time.Now().UTC().Truncate(time.Second), Sealed: m.EndTime, SHA256: m.SHA256, Damaged: 1}
				})
			},
		},
		"arriving, then sealed": {
			first: func(d *diary) *Crash {
				w, c := d.begin("a", 1, faultIn(driver), all)
				d.open = w
				return c
			},
			later: func(d *diary, _ *Crash) {
				_, err := d.open.Seal(d.t.Context(), "")
				if err := errors.Join(err, d.open.Close()); err != nil {
					d.t.Error(err)
				}
			},
			want: true,
		},
		"a log that says nothing, and a report of the memory": {
			first: func(d *diary) *Crash {
				c := d.dump("a", 1, "cut\n", all)
				id, err := signatureOf(strings.NewReader(faultIn(driver)))
				if id == "" || err != nil {
					d.t.Fatal(id, err)
				}
				d.save(c.Ref, func(m *dumpdir.Manifest) dumpdir.SideFile {
					memory := &dumpdir.Signature{ID: id, Coarse: id, Frames: []string{}}
					return dumpdir.NewStoredReport(m, dumpdir.ReportHead{Signatures: dumpdir.Signatures{Memory: memory}}, []byte("{}"), time.Now())
				})
				return c
			},
			second: faultIn(driver), want: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiary(t)
			first := tc.first(d)
			log := tc.second
			if log == "" {
				log = faultIn(driver)
			}
			w, second := d.begin("a", 2, strings.TrimPrefix(log, "-"), 0)
			defer func() { _ = w.Close() }()
			rs := d.rules(Rule{SameCrash: 1})
			if tc.later != nil {
				rs.Decide(t.Context(), second)
				tc.later(d, first)
			}
			got := rs.Decide(t.Context(), second)
			if got.Declines() != tc.want || tc.want && !strings.Contains(got.Reason, "the same crash is stored 1 times: BUG: kernel NULL pointer dereference") {
				t.Errorf("%+v, want a log only: %v", got, tc.want)
			}
		})
	}
}

// TestCrashesAreCountedWithoutListing asks about many dumps, of which only the first ones were there when the store was listed.
func TestCrashesAreCountedWithoutListing(t *testing.T) {
	d := newDiary(t)
	rs := d.rules(Rule{SameCrash: 1})
	want := func(r Rule, c *Crash, want int) {
		t.Helper()
		if got, _, err := rs.crashes.count(t.Context(), &r, c); got != want || err != nil {
			t.Errorf("%s: %d before, want %d: %v", c.Ref, got, want, err)
		}
	}
	fleet := Rule{SameCrash: 1, SameCrashFrom: ScopeFleet}
	const dumps = 12
	crashes := make([]*Crash, dumps)
	for n := range dumps {
		crashes[n] = d.dump([]string{"web1", "web2"}[n%2], n, faultIn(driver), allChunks)
		want(Rule{SameCrash: 1}, crashes[n], n/2)
		want(fleet, crashes[n], n)
	}
	want(fleet, crashes[5], 5) // it comes back
	want(Rule{SameCrash: 1, Within: time.Since(came(4)) - time.Minute}, crashes[10], 2)
	want(Rule{SameCrash: 1}, d.dump("web1", 99, faultIn(pageCache), allChunks), 0)
	if n := d.listed.Load(); n != 1 {
		t.Errorf("listed %d times, want once", n)
	}
	for i, times := range []int64{2, 2} { // nobody has asked before the second one
		if err := rs.crashes.refresh(t.Context()); err != nil || d.listed.Load() != times {
			t.Errorf("refresh %d: listed %d times, want %d: %v", i, d.listed.Load(), times, err)
		}
	}
	want(fleet, crashes[dumps-1], dumps-1)
}

// TestSignatureOfALongLog reads only the end of a log.
func TestSignatureOfALongLog(t *testing.T) {
	d := newDiary(t)
	line := "[    1.000000] usb 1-1: new device\n"
	long := d.dump("a", 1, strings.Repeat(line, (maxSigned+len(line))/len(line))+faultIn(driver), allChunks)
	id, err := newSigner(d).signature(t.Context(), long.Ref, long.LogBytes)
	want, _ := signatureOf(strings.NewReader(faultIn(driver)))
	if id != want || id == "" || err != nil {
		t.Errorf("%q, want %q: %v", id, want, err)
	}
}
