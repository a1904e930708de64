package printk_test

import (
	"errors"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/printk"
)

func TestAreas(t *testing.T) {
	ring, old, none := kerneltest.NewX86(4), kerneltest.NewX86(5), kerneltest.NewX86(4)
	ring.InstallRing(kerneltest.NewRing(6, 12).RingImage)
	old.InstallLog(kerneltest.NewLog(1<<14), "printk_log")
	for _, tc := range []struct {
		name string
		m    *kerneltest.Machine
		want []uint64 // sizes
		err  error
	}{
		{"ring", ring, []uint64{64 * kerneltest.RingDescSize, 64 * kerneltest.RingInfoSize, 1 << 12}, nil},
		{"records of variable length", old, []uint64{1 << 14}, nil},
		{"no log", none, nil, printk.ErrNoLog},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, err := kernel.New(tc.m.Config())
			if err != nil {
				t.Fatal(err)
			}
			areas, err := printk.Areas(k)
			if !errors.Is(err, tc.err) || len(areas) != len(tc.want) {
				t.Fatalf("got %v, %v", areas, err)
			}
			for i, a := range areas {
				if a.Size != tc.want[i] {
					t.Errorf("area %d has %d bytes, want %d", i, a.Size, tc.want[i])
				}
				if err := k.ReadVirt(make([]byte, a.Size), a.Start); err != nil {
					t.Errorf("area %d: %v", i, err)
				}
			}
		})
	}
}
