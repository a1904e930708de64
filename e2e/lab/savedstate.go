package lab

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// A state is a machine that was stopped just before it panics, as files in a directory: the machine's memory and devices, the
// initramfs of its system kernel, and the records of that kernel.
type state struct{ dir string }

func (s state) path(file string) string { return filepath.Join(s.dir, file) }

// statesVersion is part of the name of every saved state. Increase it when the module that crashes or the guest program learns a kind
// of panic: captures of the others stay as they are.
const statesVersion = 4

// Files of a state.
const (
	stateMigration = "migration"
	stateInitrd    = "system.img"
)

// savedState returns the state in which panics of a scenario begin, of the cache or a new one. A state has some 200 MiB. Without
// it, captures that are in the cache stay whole.
func savedState(ctx context.Context, s Scenario, k *Kernel) (state, error) {
	s.Crash = guestcfg.CrashByOrder
	dir, err := cached(ctx, "states", fmt.Sprintf("%s-%s-%d", s.Name(), s.panicHash(k.Release), statesVersion), func(dir string) error {
		return stubbornly(ctx, dir, func() error { return saveState(ctx, s, k, dir) })
	})
	return state{dir}, err
}

// RemoveStates removes the saved states. Panic makes a new one when it needs it.
func RemoveStates() error { return os.RemoveAll(filepath.Join(CacheDir(), "states")) }

// saveState boots a machine and saves its state when it waits for the order to panic.
func saveState(ctx context.Context, s Scenario, k *Kernel, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, captureTimeout)
	defer cancel()
	work, err := tempDir("state")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	captureInitrd, err := writeCaptureInitrd(ctx, k, work)
	if err != nil {
		return err
	}
	crashmod, patch, err := k.crashmod(ctx, work)
	if err != nil {
		return err
	}
	m, err := prepare(ctx, s, k, work, bootPlan{
		captureInitrd: captureInitrd, records: true, modules: []module{crashmod}, files: map[string]string{guestcfg.PatchPath: patch},
	})
	if err != nil {
		return err
	}
	if err := m.addPanicDisks(); err != nil {
		return err
	}
	if err := m.saveAtOrder(ctx, dir); err != nil {
		return err
	}
	return keepRecords(m.diskPath(guestcfg.DiskRecords), dir)
}

// saveAtOrder boots a machine, and saves its state and its initramfs in dir when it waits for its order.
func (m *machine) saveAtOrder(ctx context.Context, dir string) error {
	saved := false
	m.onLine = func(line string) {
		if word, ok := guestWord(line); ok && word == guestcfg.AwaitsOrder && !saved {
			m.asideErr = errors.Join(m.asideErr, m.save(ctx, filepath.Join(dir, stateMigration)))
			saved = true
		}
	}
	if err := m.run(ctx); err != nil {
		return err
	}
	if !saved {
		return guestError(errors.New("the system kernel did not get ready to panic"), m.consolePath())
	}
	return os.Rename(m.initrd, filepath.Join(dir, stateInitrd))
}

// machine returns a machine that continues in the state, with empty disks.
func (s state) machine(scenario Scenario, k *Kernel, work string) (*machine, error) {
	m := s.resumed(scenario, k, work)
	return m, m.addPanicDisks()
}

// resumed returns a machine that continues in the state, to which the disks and devices of the state have to be added.
func (s state) resumed(scenario Scenario, k *Kernel, work string) *machine {
	m := &machine{scenario: scenario, kernel: k, dir: work, initrd: s.path(stateInitrd)}
	m.backends = []string{"-incoming", "exec:cat " + s.path(stateMigration)}
	return m
}

// addPanicDisks adds the disks of a capture, and the one with the order.
func (m *machine) addPanicDisks() error {
	in := func(file string) string { return filepath.Join(m.dir, file) }
	if err := m.addCaptureDisks(in("vmcore.elf"), in("records")); err != nil {
		return err
	}
	return m.addOrderDisk(guestcfg.OrderLen)
}

// addOrderDisk adds the disk with the order, which is empty at first.
func (m *machine) addOrderDisk(size int64) error {
	order := disk{serial: guestcfg.DiskOrder, path: filepath.Join(m.dir, "order")}
	m.disks = append(m.disks, order)
	return makeSparse(order.path, size)
}

func (m *machine) diskPath(serial string) string {
	for _, d := range m.disks {
		if d.serial == serial {
			return d.path
		}
	}
	return ""
}

// save stops the machine, writes its state to a file and ends QEMU. QEMU would stop it at the end only, but misses then some of the
// pages that the machine writes meanwhile (seen with QEMU 7.2: Linux 6.12 died of a broken stack in each start from a state).
func (m *machine) save(ctx context.Context, path string) error {
	if err := m.qmp("stop", map[string]any{}); err != nil {
		return err
	}
	// QEMU limits the speed of a migration by default, since it expects a network.
	if err := m.qmp("migrate-set-parameters", map[string]any{"max-bandwidth": int64(16) << 30}); err != nil {
		return err
	}
	if err := m.qmp("migrate", map[string]any{"uri": "exec:cat > " + path}); err != nil {
		return err
	}
	for ctx.Err() == nil {
		answer, err := m.qmpAsk("query-migrate", map[string]any{})
		if err != nil {
			return err
		}
		var migration struct{ Status string }
		if err := json.Unmarshal(answer, &migration); err != nil {
			return err
		}
		switch migration.Status {
		case "completed":
			return m.qmp("quit", map[string]any{})
		case "failed", "cancelled":
			return fmt.Errorf("lab: save the machine: migration %s", migration.Status)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return ctx.Err()
}

// panicRecords are the records of a state that go with each capture.
var panicRecords = []string{"kallsyms.gz", "modules", "tasks"}

// keepRecords unpacks the records of the guest into dir and compresses the largest.
func keepRecords(records, dir string) error {
	f, err := os.Open(records)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := untar(f, dir); err != nil {
		return err
	}
	return compressFile(filepath.Join(dir, "kallsyms"))
}

// compressFile puts NAME.gz in place of a file.
func compressFile(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(path + ".gz")
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(out)
	_, err = io.Copy(zip, in)
	return errors.Join(err, zip.Close(), out.Close(), os.Remove(path))
}

// linkRecords gives a capture the records of its state. They take no more space.
func (s state) linkRecords(dir string) error {
	for _, name := range panicRecords {
		if err := os.Link(s.path(name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
