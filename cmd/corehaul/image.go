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
	if _, has := d.VMCorePath(); !has && errors.Is(err, fs.ErrNotExist) {
		err = noPages(t.name(), d.Manifest())
	}
	if err != nil {
		return nil, errors.Join(damaged(err), d.Close())
	}
	path, _ := d.VMCorePath()
	return &memory{Image: img, name: t.name(), path: path, dump: d, stored: img}, nil
}

// noPages is the error for a dump without a vmcore: it never had one, or somebody removed it.
func noPages(name string, m *dumpdir.Manifest) error {
	if m.State == dumpdir.StateLogOnly || m.State == dumpdir.StateArriving && m.Pages.Present == 0 {
		return cli.WithHint(fmt.Errorf("dump %s has no pages, only the log", name), "'corehaul log' prints it")
	}
	return cli.WithHint(cli.VerifyFailed(fmt.Errorf("dump %s has lost its %s: the file is gone", name, dumpdir.VMCoreName)),
		"restore the file from a backup; 'corehaul log' prints the log, which is stored beside it")
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
