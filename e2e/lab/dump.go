package lab

import (
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/percpu"
	"github.com/corehaul/corehaul/kernel/tasks"
	"github.com/corehaul/corehaul/kernel/types"
	crashed "github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// A Dump is an open dump with the tables that its kernel keeps of itself. All kernels of the lab have all of them.
type Dump struct {
	Image   vmcore.Image
	Kernel  *kernel.Kernel
	Symbols *kallsyms.Table
	Types   *types.Types
	Tasks   *tasks.Reader
}

// Open opens the machine's ELF file. The caller closes it.
func (c *Captured) Open() (*Dump, error) { return openDump(c.ELF) }

// Open opens the dump of a panic. The caller closes it.
func (c *PanicCapture) Open() (*Dump, error) { return openDump(c.Dump) }

// Close closes the file.
func (d *Dump) Close() error { return d.Image.Close() }

func openDump(path string) (*Dump, error) {
	image, err := dumpfile.Open(path)
	if err != nil {
		return nil, err
	}
	d := &Dump{Image: image}
	if err := d.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: %s: %w", path, err), image.Close())
	}
	return d, nil
}

func (d *Dump) load() (err error) {
	if d.Kernel, err = crashed.Kernel(d.Image, d.Image.Info()); err != nil {
		return err
	}
	if d.Symbols, err = kallsyms.Load(d.Kernel); err != nil {
		return err
	}
	if d.Types, err = types.Load(d.Kernel, d.Symbols); err != nil {
		return err
	}
	areas, err := percpu.Load(d.Kernel, d.Symbols)
	// Without symbols of data, as on Debian's arm64, it cannot be known where they are.
	if _, data := d.Symbols.Address("init_task"); data && err != nil {
		return err
	} else if !data && err == nil {
		return errors.New("per-CPU areas of a kernel without symbols of data")
	}
	d.Tasks, err = tasks.New(d.Kernel, d.Symbols, d.Types, areas)
	return err
}
