package arm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/corehaul/corehaul/sender/initrd"
)

// Embed checks and finds what Prepare does, and writes it below dir, the tree of the image of another capture system such as kdump; see
// initrd.Embed. release is that of the image's kernel, whose modules have to be in /lib/modules. It loads nothing, and changes nothing else.
func Embed(ctx context.Context, o Options, dir, release string) (*Plan, error) {
	p := newPlan(o)
	if err := p.look(ctx, o); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(o.root(), "lib/modules", release)); err != nil {
		return nil, fmt.Errorf("kernel %s: %w", release, err)
	}
	p.Record.Kernel.Release = release
	var err error
	p.Report, err = initrd.Embed(dir, p.packing(o), slices.Concat(p.Record.Network, p.interfaceWord(o.root())))
	if err != nil {
		return nil, err
	}
	p.notePacked()
	return p, nil
}
