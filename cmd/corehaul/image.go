package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// memory is the memory of a crashed machine, opened for a command.
type memory struct {
	vmcore.Image
	name   string         // what messages call it
	path   string         // of the file
	dump   *dumpdir.Dump  // nil for a file that is in no dump directory
	stored *dumpdir.Image // the Image of dump
}

// memory opens the memory of a target. It compares the pages of a stored dump with the journal.
func (t *target) memory(ctx context.Context) (*memory, error) {
	if !t.isDump() {
		img, err := dumpfile.Open(t.path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.path, err)
		}
		return &memory{Image: img, name: t.path, path: t.path}, nil
	}
	d, err := t.dump(ctx)
	if err != nil {
		return nil, damaged(fmt.Errorf("%s: %w", t.name(), err))
	}
	img, err := d.OpenImage(ctx)
	if errors.Is(err, fs.ErrNotExist) && d.Manifest().Plan == nil {
		err = cli.WithHint(fmt.Errorf("dump %s has no pages, only the log", t.name()), "'corehaul log' prints it")
	}
	if err != nil {
		return nil, errors.Join(damaged(err), d.Close())
	}
	path, _ := d.VMCorePath()
	return &memory{Image: img, name: t.name(), path: path, dump: d, stored: img}, nil
}

// Close closes the memory and its dump.
func (m *memory) Close() error {
	err := m.Image.Close()
	if m.dump != nil {
		err = errors.Join(err, m.dump.Close())
	}
	return err
}

// damaged gives an error about damage its exit code.
func damaged(err error) error {
	var damage *dumpdir.DamageError
	if errors.As(err, &damage) || errors.Is(err, vmcore.ErrCorrupt) || errors.Is(err, vmcore.ErrTruncated) {
		return cli.VerifyFailed(err)
	}
	return err
}

// tellDamage warns of the damaged places that were found while a stored dump was read, and returns their number.
func (a *app) tellDamage(m *memory) uint64 {
	if m.stored == nil {
		return 0
	}
	found, places := m.stored.Damage()
	for i, f := range found {
		if i == shownFindings {
			a.stdio.Warn("corehaul", "... and %d more places ('corehaul verify --json' lists more of them)", places-uint64(shownFindings))
			break
		}
		a.stdio.Warn("corehaul", "%s", findingLine(f))
	}
	return places
}
