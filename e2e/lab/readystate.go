package lab

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// readyStatesVersion is part of the name of every state of readyState. Increase it when a change of the lab or of the guest program
// changes what the system kernel does before it loads a capture kernel.
const readyStatesVersion = 1

// readyDiskSize is the size of the empty disks in a state, and of the disk with the order. It is larger than any initramfs.
const readyDiskSize = 256 << 20

// startsReady reports whether the machine begins in a saved state, which several tests share. Other machines boot: those whose
// reservation follows from an estimate too, because each change of the estimate would leave a state behind.
func (o *SenderOptions) startsReady(s Scenario) bool {
	usual := Scenario{Kernel: s.Kernel, MemMiB: s.MemMiB}.withDefaults()
	return !s.Busy && s.CrashkernelMiB == usual.CrashkernelMiB && o.Clock == "" && o.Card == "" && len(o.Backends) == 0
}

// readyState returns the state in which a system kernel waits for the order with its capture initramfs, of the cache or a new one.
// A boot up to there takes 14 s of CPU time, a start in the state 1 s. Another QEMU gets a state of its own.
func readyState(ctx context.Context, s Scenario, k *Kernel, opts *SenderOptions) (state, error) {
	qemu, err := run(ctx, "", s.qemu(), "--version")
	if err != nil {
		return state{}, fmt.Errorf("lab: %w", err)
	}
	machine, err := json.Marshal(s)
	if err != nil {
		return state{}, err
	}
	hash := sha256.Sum256(fmt.Appendf(nil, "%d %s %s %s %q %d", readyStatesVersion, qemu, k.Release, machine, opts.Devices, len(opts.Disks)))
	dir, err := cached(ctx, "ready-states", fmt.Sprintf("%s-%x", s.Name(), hash[:6]), func(dir string) error {
		return stubbornly(ctx, dir, func() error { return saveReady(ctx, s, k, opts, dir) })
	})
	return state{dir}, err
}

// saveReady boots a machine and saves its state when it waits for the order.
func saveReady(ctx context.Context, s Scenario, k *Kernel, opts *SenderOptions, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, captureTimeout)
	defer cancel()
	work, err := tempDir("ready")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	m, err := prepare(ctx, s, k, work, bootPlan{ordered: true})
	if err != nil {
		return err
	}
	empty := make([]string, len(opts.Disks))
	for i := range empty {
		empty[i] = filepath.Join(work, "disk"+strconv.Itoa(i))
		if err := makeSparse(empty[i], readyDiskSize); err != nil {
			return err
		}
	}
	m.addDisks(empty)
	if err := m.addOrderDisk(readyDiskSize); err != nil {
		return err
	}
	m.devices = opts.Devices
	return m.saveAtOrder(ctx, dir)
}

// ready returns a machine that continues in the state with these disks, and loads and starts the capture initramfs.
func (s state) ready(scenario Scenario, k *Kernel, work string, plan bootPlan, disks []string) (*machine, error) {
	m := s.resumed(scenario, k, work)
	m.addDisks(disks)
	if err := m.addOrderDisk(readyDiskSize); err != nil {
		return nil, err
	}
	return m, m.orderImage(plan)
}

// addDisks adds raw images, in the order of vda, vdb...
func (m *machine) addDisks(paths []string) {
	for i, path := range paths {
		m.disks = append(m.disks, disk{serial: "disk" + strconv.Itoa(i), path: path})
	}
}

// orderImage writes the order with the capture initramfs to its disk. The clock has stood since the state was saved.
func (m *machine) orderImage(plan bootPlan) error {
	initrd, err := os.Open(plan.captureInitrd)
	if err != nil {
		return err
	}
	defer func() { _ = initrd.Close() }()
	fi, err := initrd.Stat()
	if err != nil {
		return err
	}
	if fi.Size() > readyDiskSize-guestcfg.OrderLen-guestcfg.OrderSlack {
		return fmt.Errorf("lab: %s of %d bytes is larger than the disk for it", plan.captureInitrd, fi.Size())
	}
	order, err := json.Marshal(guestcfg.Order{CaptureAppend: plan.append(m.scenario), Time: time.Now().Unix(), InitrdLen: fi.Size()})
	if err != nil {
		return err
	}
	disk, err := os.OpenFile(m.diskPath(guestcfg.DiskOrder), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }()
	if _, err := io.Copy(io.NewOffsetWriter(disk, guestcfg.OrderLen), initrd); err != nil {
		return err
	}
	if _, err := disk.Write(orderBlock(string(order))); err != nil {
		return err
	}
	return disk.Close()
}

// append returns the command line of the capture kernel.
func (p *bootPlan) append(s Scenario) string {
	return strings.TrimSpace(s.captureAppend() + " " + p.captureAppend)
}
