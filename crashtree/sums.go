package crashtree

import (
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/dumpdir"
)

// sumKind is a kind of checksum that people leave beside dumps.
type sumKind struct {
	name  string   // for people
	files []string // that may have it, without case; * is the name of the dump's file
	parse func(text string) *dumpdir.Sums
	hash  func() hash.Hash
}

// sumKinds are in the order of preference: MD5 finds accidents, and proves nothing against somebody who wants another file.
var sumKinds = []sumKind{
	{"SHA-256", []string{"sha256sums", "sha256sum", "sha256sum.txt", "sha256sums.txt", "*.sha256", "*.sha256sum"}, dumpdir.ParseSums, sha256.New},
	{"MD5", []string{"md5sums", "md5sum", "md5sum.txt", "md5sums.txt", "*.md5", "*.md5sum"}, dumpdir.ParseMD5Sums, md5.New},
}

// maxSumsLen bounds the part of a file with checksums that is read, in bytes.
const maxSumsLen = 16 << 20

// compareSums compares the images with checksums beside them. A difference costs the dump its completeness: pages may decode, and yet be
// others than those that were summed. It also changes the id, so that a file without the difference is another dump.
func (p *pending) compareSums(ctx context.Context) error {
	if p.src == nil {
		return nil
	}
	names, err := p.o.sumFiles()
	if err != nil {
		return err
	}
	for i, image := range p.o.images {
		if err := p.compareSum(ctx, names, p.o.Images[i], image); err != nil {
			return err
		}
	}
	return nil
}

// compareSum compares one image with the first checksum that is found for it.
func (p *pending) compareSum(ctx context.Context, names []string, name string, image *file) error {
	for _, kind := range sumKinds {
		for _, beside := range names {
			if !kind.isIn(beside, name) {
				continue
			}
			want, listed := p.listed(kind, beside, name)
			if !listed {
				continue
			}
			h := kind.hash()
			if _, err := io.Copy(h, &packedInput{ctx: ctx, r: io.NewSectionReader(image, 0, image.was.Size())}); err != nil {
				return err
			}
			p.compared(kind, beside, name, hex.EncodeToString(h.Sum(nil)) == want)
			return nil
		}
	}
	return nil
}

// compared notes the result of a comparison.
func (p *pending) compared(kind sumKind, beside, name string, match bool) {
	p.out.Compared = beside
	if match {
		p.out.Matched = append(p.out.Matched, fmt.Sprintf("the %s of %s is the one in %s", kind.name, name, beside))
		return
	}
	p.src.Doubt(fmt.Sprintf("the %s of %s is not the one in %s", kind.name, name, beside))
	sum := sha256.Sum256([]byte("another " + kind.name + "\x00" + p.out.ID))
	p.out.ID = hex.EncodeToString(sum[:16])
}

// isIn reports whether a file by the name of beside may have sums of this kind for the file name.
func (k *sumKind) isIn(beside, name string) bool {
	return slices.ContainsFunc(k.files, func(pattern string) bool {
		return strings.EqualFold(beside, strings.Replace(pattern, "*", name, 1))
	})
}

// listed returns the sum of a file in a file with sums.
func (p *pending) listed(kind sumKind, beside, name string) (sum string, ok bool) {
	text, err := p.o.place().head(beside, maxSumsLen)
	if err != nil {
		p.out.Warnings = append(p.out.Warnings, err.Error())
		return "", false
	}
	sums := kind.parse(text)
	if sums.Malformed > 0 {
		p.out.Warnings = append(p.out.Warnings, fmt.Sprintf("%s: %d lines are not in the format of sha256sum or md5sum, or contradict others; they are ignored",
			filepath.Join(p.o.Dir, beside), sums.Malformed))
	}
	abs, err := filepath.Abs(filepath.Join(p.o.Dir, name))
	if err != nil {
		return "", false
	}
	of, named := sums.Of(name)
	whole, full := sums.Of(abs)
	return cmp.Or(of, whole), named || full
}

// sumFiles returns the names of the files in the dump's directory that may have checksums.
func (o *opened) sumFiles() ([]string, error) {
	names, err := o.place().names()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(beside string) bool {
		return !slices.ContainsFunc(sumKinds, func(k sumKind) bool {
			return slices.ContainsFunc(o.Images, func(name string) bool { return k.isIn(beside, name) })
		})
	}), nil
}
