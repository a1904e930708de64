package crashtree

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/corehaul/corehaul/dumpdir"
)

// compareSums compares the images with a SHA256SUMS beside them. A difference costs the dump its completeness: pages may decode, and yet be
// others than those that were summed. It also changes the id, so that a file without the difference is another dump.
func (p *pending) compareSums(ctx context.Context) error {
	if p.src == nil {
		return nil
	}
	for _, name := range p.o.Images {
		b, err := dumpdir.SumBeside(ctx, filepath.Join(p.o.Dir, name))
		if err != nil {
			return err
		}
		p.out.Warnings = append(p.out.Warnings, b.Warnings...)
		if b.Name == "" {
			continue
		}
		p.out.Compared = dumpdir.SumsName
		if !b.Match {
			p.src.Doubt(fmt.Sprintf("the SHA-256 of %s is not the one in %s", name, dumpdir.SumsName))
			sum := sha256.Sum256([]byte("another SHA-256\x00" + p.out.ID))
			p.out.ID = hex.EncodeToString(sum[:16])
		}
	}
	return nil
}
