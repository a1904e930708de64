package storage

import (
	"context"

	"github.com/corehaul/corehaul/dumpdir"
)

// TakeOptions of Store.Take.
type TakeOptions struct {
	// Fill writes a sealed dump into the empty directory dir, durably. Nobody else sees the directory. An error of Fill is that of Take,
	// and nothing is left.
	Fill func(ctx context.Context, fsys dumpdir.FS, dir string) error
	// Instead says what becomes of a dump of the same name that the store has already. Nil means KeepStored.
	Instead func(stored *Entry) Replacement
}

// Replacement says what becomes of a stored dump.
type Replacement int

// Answers of TakeOptions.Instead.
const (
	// KeepStored: the stored dump stays. The error of Take matches ErrExists.
	KeepStored Replacement = iota
	// ReplaceStored: the new dump takes its place, as by Challengers.Promote.
	ReplaceStored
	// PutStoredAside: the new dump takes its place, and only a person deletes the old one.
	PutStoredAside
)
