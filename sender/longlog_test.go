package sender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/protocol"
)

const (
	longFault = "BUG: unable to handle page fault for address: ffffc90000000000"
	longPanic = "Kernel panic - not syncing: Fatal exception"
	longFirst = "Linux version 6.1.0"
)

// longLogSource is a dump whose log is longer than the protocol takes: the fault is in the middle, the panic at the end.
func longLogSource(t *testing.T) *Source {
	t.Helper()
	m := kerneltest.NewX86(4)
	m.Strings["PAGESIZE"], m.Strings["OSRELEASE"] = "4096", "6.1.0-long"
	m.InstallRing(kerneltest.LongLog(map[int]string{
		0: longFirst, kerneltest.LongLogRecords / 5: longFault, kerneltest.LongLogRecords - 1: longPanic,
	}))
	var b bytes.Buffer
	if err := m.WriteCore(&b); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "vmcore")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	return src
}

// wantLongLog checks that a log has its start, the fault and its end, and that both are found in it.
func wantLongLog(t *testing.T, log []byte) {
	t.Helper()
	if n := len(log); n > protocol.MaxLogBytes || n < protocol.MaxLogBytes*9/10 {
		t.Errorf("a log of %d bytes", n)
	}
	if n := bytes.Count(log, []byte("--- corehaul left out ")); n != 2 {
		t.Errorf("%d marks", n)
	}
	for _, line := range []string{longFirst, longFault, longPanic} {
		if !bytes.Contains(log, []byte("] "+line+"\n")) {
			t.Errorf("%q is left out", line)
		}
	}
	if !bytes.HasSuffix(log, []byte("] "+longPanic+"\n")) {
		t.Errorf("the log ends with %q", log[max(0, len(log)-100):])
	}
	var title printk.TitleScanner
	_, _ = title.Write(log)
	if title.Line() != longFault {
		t.Errorf("panic line %q", title.Line())
	}
}

// TestLongLogIsShortened sends a log of more than protocol.MaxLogBytes twice: both times the receiver gets the same, with its end.
// Under the race detector, which looks at every byte of it, once.
func TestLongLogIsShortened(t *testing.T) { synctest.Test(t, testLongLogIsShortened) }

func testLongLogIsShortened(t *testing.T) {
	src := longLogSource(t)
	logs := make([][]byte, 3-race.Stride(2))
	for i := range logs {
		f := newFakeReceiver(t)
		f.collect = protocol.CollectLog
		o := options(f)
		var said strings.Builder
		o.LogOnly, o.Log = true, func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
		if _, err := Send(t.Context(), src, o); err != nil {
			t.Fatal(err)
		}
		wantLongLog(t, f.log)
		if !strings.Contains(f.logEnd.Error, "are left out") || !strings.Contains(said.String(), f.logEnd.Error) {
			t.Errorf("the receiver hears %q; the console has %q", f.logEnd.Error, said.String())
		}
		logs[i] = f.log
	}
	if !bytes.Equal(logs[0], logs[len(logs)-1]) {
		t.Error("sent again, the log is another one")
	}
}

// TestLongLogEndsWithTheSession does not read a log on, which takes a minute for a large one, when nobody wants it any more; who comes
// then gets all of it.
func TestLongLogEndsWithTheSession(t *testing.T) {
	if race.Enabled {
		t.Skip("one goroutine: the race detector has nothing to find")
	}
	src := longLogSource(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := src.WriteLog(ctx, io.Discard); !errors.Is(err, gone) || src.image.reads.Load() > 1000 {
		t.Errorf("%d reads, %v", src.image.reads.Load(), err)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	defer cancel(nil)
	if _, err := src.WriteLog(ctx, writerFunc(func(p []byte) (int, error) { cancel(gone); return len(p), nil })); !errors.Is(err, gone) {
		t.Error(err)
	}
	var log bytes.Buffer
	if _, err := src.WriteLog(t.Context(), &log); err != nil {
		t.Error(err)
	}
	wantLongLog(t, log.Bytes())
}

type writerFunc func(p []byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

// TestLongLogOverSFTP stores such a log in a depot. For the race detector it is TestSendSFTP with more bytes.
func TestLongLogOverSFTP(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector has TestSendSFTP")
	}
	dir := t.TempDir()
	o := sftpOptions(t, sftpPeer(t, dir))
	o.LogOnly = true
	if _, err := Send(t.Context(), longLogSource(t), o); err != nil {
		t.Fatal(err)
	}
	dump := sftpDump(t, dir)
	log, err := os.ReadFile(filepath.Join(dump, dumpdir.LogName))
	if err != nil {
		t.Fatal(err)
	}
	wantLongLog(t, log)
	d, err := dumpdir.Open(dumpdir.OS{}, dump)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }() // only read
	if got := d.Manifest().PanicLine; got != longFault {
		t.Errorf("panic line %q", got)
	}
}

// TestLogTierOfLargeLog holds that the log tier has the newest records of a log that is too large for it, in the ring and in
// the buffer of older kernels, and stays within its bound.
func TestLogTierOfLargeLog(t *testing.T) {
	if race.Enabled {
		t.Skip("one goroutine: the race detector has nothing to find")
	}
	const n, textLen, most = 400, 8 << 10, 300
	line := func(i uint64) string { return fmt.Sprintf("record %d;", i) }
	for name, install := range map[string]func(m *kerneltest.Machine) *kerneltest.MadeMemory{
		"ring": func(m *kerneltest.Machine) *kerneltest.MadeMemory {
			return m.InstallLongRing(26, 31, n, textLen, line)
		},
		"old": func(m *kerneltest.Machine) *kerneltest.MadeMemory {
			return m.InstallLongLog(1<<31, n, textLen, line)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := kerneltest.NewX86(4)
			memory := install(m)
			r := newRecorder(memory, 12, most)
			cfg := m.Config()
			cfg.Memory = r
			k, err := kernel.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.touchLog(k); err != nil {
				t.Fatal(err)
			}
			if got := len(r.seen); got != most {
				t.Errorf("%d pages are noted, want %d", got, most)
			}
			only := &onlyPages{PhysReader: memory, pages: r.extents()}
			cfg.Memory = only
			if k, err = kernel.New(cfg); err != nil {
				t.Fatal(err)
			}
			newest, err := printk.Newest(k)
			if err != nil {
				t.Fatal(err)
			}
			have := uint64(0)
			for a := range newest {
				if k.ReadVirt(make([]byte, a.Size), a.Start) != nil {
					break
				}
				have += a.Size
			}
			if have < most<<12*3/4 {
				t.Errorf("the newest %d bytes of the log are there, in %d pages", have, most)
			}
		})
	}
}
