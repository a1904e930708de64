package dumpdir

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// Values of Report.Compared: what the verification compared the bytes with.
const (
	ComparedJournal = "journal"    // every byte of a stored dump
	ComparedSums    = "SHA256SUMS" // the file as a whole
	ComparedNothing = "nothing"    // pages were only decoded
)

// Beside is what the SHA256SUMS beside a file says about it.
type Beside struct {
	Name     string // path of the SHA256SUMS; empty if none has a line for the file
	Match    bool   // the file has the SHA-256 of that line
	Warnings []string
}

// SumBeside looks for a SHA256SUMS with a line for a regular file, in its directory or in that of a link's target,
// and compares it. Errors come from reading the file, or from ctx.
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
		b.Warnings = append(b.Warnings, fmt.Sprintf("%s: %d lines are not in the format of sha256sum, or contradict others; they are ignored", at, sums.Malformed))
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

// maxSumsFileLen bounds the part of a SHA256SUMS that is read.
const maxSumsFileLen = 16 << 20

// AddTo adds the result to a report on the file. rep is nil if the file is no readable dump; cannotOpen says why. AddTo
// returns cannotOpen unless SHA256SUMS has another SHA-256 for the file.
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
