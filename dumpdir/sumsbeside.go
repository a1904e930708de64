package dumpdir

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// What a verification compared the bytes that it read with: Report.Compared.
const (
	ComparedJournal = "journal"    // every byte of a stored dump
	ComparedSums    = "SHA256SUMS" // the file as a whole
	ComparedNothing = "nothing"    // pages were decoded only
)

// Beside is what a SHA256SUMS beside a file says of it.
type Beside struct {
	Name     string // path of the SHA256SUMS; empty when there is none with a line for the file
	Match    bool   // the file has the SHA-256 that it has there
	Warnings []string
}

// SumBeside looks for a SHA256SUMS in the directory of a regular file, or where a symbolic link to one leads, that has a line for it, and
// compares it. Errors are those of reading the file, or of ctx.
func SumBeside(ctx context.Context, name string) (*Beside, error) {
	b := &Beside{}
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return b, err
	}
	places := []string{name}
	if real, err := filepath.EvalSymlinks(name); err == nil && real != name {
		places = append(places, real)
	}
	for _, place := range places {
		want, listed := b.listed(place)
		if !listed {
			continue
		}
		_, sum, err := hashFile(OS{}, name, ctx.Err)
		if err != nil {
			return nil, err
		}
		b.Name, b.Match = filepath.Join(filepath.Dir(place), SumsName), hex.EncodeToString(sum[:]) == want
		return b, nil
	}
	return b, nil
}

// listed returns the sum of a file in the SHA256SUMS beside it.
func (b *Beside) listed(name string) (sum string, ok bool) {
	at := filepath.Join(filepath.Dir(name), SumsName)
	text, there := headOf(at, maxSumsFileLen)
	if !there {
		return "", false
	}
	sums := ParseSums(text)
	if sums.Malformed > 0 {
		b.Warnings = append(b.Warnings, fmt.Sprintf("%s: %d lines are none of sha256sum, or contradict others; they are passed over", at, sums.Malformed))
	}
	if sum, ok = sums.Of(filepath.Base(name)); ok {
		return sum, true
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", false
	}
	return sums.Of(abs)
}

// maxSumsFileLen bounds what is read of a SHA256SUMS that may list much else.
const maxSumsFileLen = 16 << 20

// AddTo adds to a report on the file what the SHA256SUMS says. cannotOpen is why the file is no dump that could be read, and nil
// for one that was: rep is nil with it. A file that is no dump, and no other than it was, gives cannotOpen.
func (b *Beside) AddTo(rep *Report, name string, cannotOpen error) (*Report, error) {
	if cannotOpen != nil {
		if b.Name == "" || b.Match {
			return nil, cannotOpen
		}
		rep = &Report{State: StateDamaged, Damaged: 1, Findings: []Finding{{File: filepath.Base(name), Offset: -1, Where: "file", Text: cannotOpen.Error()}}}
	}
	rep.Warnings = append(rep.Warnings, b.Warnings...)
	rep.Compared = ComparedNothing
	if b.Name == "" {
		return rep, nil
	}
	rep.Compared = ComparedSums
	if !b.Match {
		rep.add(Finding{File: filepath.Base(name), Offset: -1, Where: "file", Text: "SHA-256 is not the one in " + b.Name}, len(rep.Findings)+1)
	}
	return rep, nil
}
