package admission

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/signature"
	"github.com/corehaul/corehaul/storage"
)

const (
	// maxSigned is how many bytes at the end of a log are read for its signature. The report of a crash is the last thing in it, and
	// is read up to 256 KiB.
	maxSigned = 4 << 20
	// maxReaders bounds the logs that are read at the same time. Each takes up to 1.5 MiB of memory (see oops.Scanner).
	maxReaders = 2
	// maxLogs bounds how many logs of dumps without a report one listing reads.
	maxLogs = 100
)

// signer finds the signatures of dumps in their stored logs: reports come later, and some receivers make none. It remembers what
// it found. It is safe for concurrent use.
type signer struct {
	store   storage.Store
	readers chan struct{}

	mu    sync.Mutex
	known map[logKey]string
}

// logKey names a log: a later one of the same dump is longer.
type logKey struct {
	ref   storage.Ref
	bytes int64
}

func newSigner(store storage.Store) *signer {
	return &signer{store: store, readers: make(chan struct{}, maxReaders), known: map[logKey]string{}}
}

// knows reports whether signature needs not read the log.
func (s *signer) knows(ref storage.Ref, bytes int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.known[logKey{ref, bytes}]
	return ok
}

// signature returns the signature in the log of a dump, whose length is bytes. It is empty if the log has none that names a place in
// the code: different crashes may have the same message. A log that cannot be read has none either, after an error.
func (s *signer) signature(ctx context.Context, ref storage.Ref, bytes int64) (string, error) {
	key := logKey{ref, bytes}
	s.mu.Lock()
	id, ok := s.known[key]
	s.mu.Unlock()
	if ok || bytes == 0 {
		return id, nil
	}
	select {
	case s.readers <- struct{}{}:
		defer func() { <-s.readers }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	id, err := s.read(ctx, ref)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= 2*maxHistory {
		clear(s.known) // what is needed is read again
	}
	s.known[key] = id
	return id, err
}

func (s *signer) read(ctx context.Context, ref storage.Ref) (id string, err error) {
	d, err := s.store.Open(ctx, ref)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	log, err := d.OpenLog()
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if _, err := io.CopyN(io.Discard, log, max(0, d.Manifest().Bytes.Log-maxSigned)); err != nil {
		return "", err
	}
	return signatureOf(io.LimitReader(log, maxSigned))
}

// signatureOf returns the signature in the text of a log. A bug in the readers of logs ends with an error: it must not stop the
// sessions of other hosts.
func signatureOf(log io.Reader) (id string, err error) {
	defer func() {
		if p := recover(); p != nil {
			id, err = "", fmt.Errorf("internal error: %v", p)
		}
	}()
	var scanner oops.Scanner
	if _, err := io.Copy(&scanner, log); err != nil {
		return "", err
	}
	report, err := scanner.Report()
	if errors.Is(err, oops.ErrNoCrash) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if s := (*dumpdir.Signature)(signature.OfLog(report)); s.NamesPlace() {
		id = s.ID
	}
	return id, nil
}

// precise returns the signatures in the report of a dump that name a place in the code.
func precise(e *storage.Entry) (ids []string) {
	for _, s := range []*dumpdir.Signature{e.Signatures.Log, e.Signatures.Memory} {
		if s.NamesPlace() {
			ids = append(ids, s.ID)
		}
	}
	return ids
}
