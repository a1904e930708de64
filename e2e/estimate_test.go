package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/sender/arm/estimate"
	"github.com/corehaul/corehaul/sender/arm/kexec"
	"github.com/corehaul/corehaul/sender/initrd"
)

// captureEstimate is the estimated size of the capture kernel's memory in MiB, for an image of capturePack.
func captureEstimate(tb testing.TB, s lab.Scenario, image string) int {
	tb.Helper()
	k, err := lab.GetKernel(tb.Context(), s.Kernel)
	if err != nil {
		tb.Fatal(err)
	}
	file, err := os.ReadFile(k.Image)
	if err != nil {
		tb.Fatal(err)
	}
	rep, err := initrd.Pack(io.Discard, initrd.Options{
		Init: captureSender, KernelModules: k.ModulesDir, Modules: []string{"virtio_net"}, Config: filepath.Join(filepath.Dir(image), "send.toml"),
	})
	if err != nil {
		tb.Fatal(err)
	}
	head := kexec.ReadImage(file)
	e := estimate.Of(estimate.Input{
		Kernel: head.Memory, Unpacks: head.Unpacks, Cards: 1, Memory: uint64(s.MemMiB) << 20,
		Packed: uint64(rep.Packed), Unpacked: uint64(rep.Unpacked), Loaded: uint64(rep.Loaded),
	})
	tb.Logf("estimate: %+v", e)
	return int(e.Size >> 20)
}

// BenchmarkEstimate compares the estimate with the least memory with which a dump arrives, found by bisection in steps of 4 MiB.
func BenchmarkEstimate(b *testing.B) {
	for _, s := range []lab.Scenario{
		{Kernel: "6.1", MemMiB: 1 << 10},
		{Kernel: "6.1-generic", MemMiB: 1 << 10},
		{Kernel: "6.1-generic", MemMiB: 16 << 10},
		{Kernel: "5.10", MemMiB: 1 << 10},
		{Kernel: "6.12", MemMiB: 1 << 10},
		{Kernel: "7.3", MemMiB: 1 << 10},
	} {
		s.Kexec = "s" // kexec(8) needs more than the kernel does
		b.Run(fmt.Sprintf("%s/%dGiB", s.Kernel, s.MemMiB>>10), func(b *testing.B) {
			for b.Loop() {
				benchEstimate(b, s)
			}
		})
	}
}

func benchEstimate(b *testing.B, s lab.Scenario) {
	b.Helper()
	const step = 4
	store := judgesServe(b)
	image := store.captureImage(b, store.address(b), s.Kernel, "deadline = \"5m\"\n")
	size := captureEstimate(b, s, image)
	fails, works := size/2, size
	if !dumpsWith(b, s, image, works) {
		b.Fatalf("%s: no dump with crashkernel=%dM, which is the estimate", s.Name(), works)
	}
	for works-fails > step {
		if mib := (works + fails) / 2; dumpsWith(b, s, image, mib) {
			works = mib
		} else {
			fails = mib
		}
	}
	b.ReportMetric(float64(size), "MiB/estimate")
	b.ReportMetric(float64(works), "MiB/least")
	b.ReportMetric(float64(size)/float64(works), "x/least")
}

// dumpsWith reports whether a whole dump arrives from a machine with so much reserved memory.
func dumpsWith(b *testing.B, s lab.Scenario, image string, mib int) bool {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), captureTimeout)
	defer cancel()
	s.CrashkernelMiB = mib
	run, err := lab.RunSender(ctx, s, image, lab.SenderOptions{})
	if run == nil {
		b.Fatal(err)
	}
	complete := strings.Contains(captureSaid(run), "corehaul-send: dump complete: ")
	b.Logf("crashkernel=%dM: a dump: %t; %s", mib, complete, captureLeastFree.FindString(run.Console))
	return complete
}
