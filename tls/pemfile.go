package tls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// PEM block types.
const (
	blockCert = "CERTIFICATE"
	blockKey  = "PRIVATE KEY"
	blockPin  = "COREHAUL RECEIVER PIN"
)

const (
	// maxFile is far above an identity with all its certificates.
	maxFile = 256 << 10
	// maxBlocks bounds the PEM blocks of one file.
	maxBlocks = 64
)

// FileError is a problem with a file of keys or certificates, and what to do next.
type FileError struct {
	// Path of the file, or "identity" for bytes without a file.
	Path    string
	Problem string
	Hint    string
	Err     error

	said bool // Problem says what Err is
}

// Error names the file and the problem.
func (e *FileError) Error() string {
	if e.Err == nil || e.said {
		return e.Path + ": " + e.Problem
	}
	return fmt.Sprintf("%s: %s: %v", e.Path, e.Problem, e.Err)
}

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// Hints tells what to do next.
func (e *FileError) Hints() []string {
	if e.Hint == "" {
		return nil
	}
	return []string{e.Hint}
}

// bundle is what a PEM file holds.
type bundle struct {
	certs []*x509.Certificate
	keys  []crypto.Signer
	pins  []Pin
}

// parsePEM reads a file's blocks in order and ignores text between them. A block that does not parse, or that has
// another type, is an error.
func parsePEM(data []byte) (*bundle, error) {
	b := new(bundle)
	for n := 0; ; n++ {
		block, rest := pem.Decode(data)
		switch {
		case block == nil && bytes.Contains(data, []byte("-----BEGIN")):
			return nil, fmt.Errorf("PEM block %d is damaged", n+1)
		case block == nil:
			return b, nil
		case n >= maxBlocks:
			return nil, fmt.Errorf("more than %d PEM blocks", maxBlocks)
		}
		if err := b.add(block); err != nil {
			return nil, fmt.Errorf("PEM block %d, %.32q: %w", n+1, block.Type, err)
		}
		data = rest
	}
}

func (b *bundle) add(block *pem.Block) error {
	switch block.Type {
	case blockCert:
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		b.certs = append(b.certs, cert)
	case blockKey:
		key, err := parseKey(block.Bytes)
		if err != nil {
			return err
		}
		b.keys = append(b.keys, key)
	case blockPin:
		if len(block.Bytes) != len(Pin{}) {
			return fmt.Errorf("%d bytes, want %d", len(block.Bytes), len(Pin{}))
		}
		b.pins = append(b.pins, Pin(block.Bytes))
	default:
		return errors.New("unknown type")
	}
	return nil
}

func parseKey(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

// keyFits reports whether key is the private key of cert.
func keyFits(cert *x509.Certificate, key crypto.Signer) bool {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(cert.PublicKey)
}

func certPEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockCert, Bytes: cert.Raw})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der}), nil
}

func pinPEM(pin Pin) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockPin, Bytes: pin[:]})
}

// ReadSecret reads a small regular file with a private key in it, which has to be closed to others: a [FileError] has the
// command that closes it. What is in the file comes with that error too, because it may be no key at all.
func ReadSecret(path string) ([]byte, error) {
	data, info, err := read(path)
	if err != nil {
		return nil, err
	}
	return data, closed(path, info)
}

// closed returns an error for a file with a private key that others can read.
func closed(path string, info fs.FileInfo) error {
	others := plainfile.OpenToOthers(info)
	if others == "" || os.Getpid() == 1 { // a capture initramfs has no other users, and a refusal would cost the dump
		return nil
	}
	return &FileError{Path: path, Problem: "the private key in it is open to others, to " + others, Hint: "close it with: chmod 600 " + path}
}

func read(path string) ([]byte, fs.FileInfo, error) {
	f, err := plainfile.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = &FileError{Path: path, Problem: fmt.Sprintf("larger than %d bytes", maxFile)}
	}
	return data, info, err
}

// readFile reads a small regular file. One with a private key has to be closed to others.
func readFile(path, hint string) ([]byte, error) {
	fail := func(problem string, err error) error {
		return &FileError{Path: path, Problem: problem, Hint: hint, Err: err}
	}
	data, info, err := read(path)
	var large *FileError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &FileError{Path: path, Problem: "there is no such file", Hint: hint, Err: fs.ErrNotExist, said: true}
	case errors.Is(err, plainfile.ErrNotRegular):
		return nil, fail("cannot be read", err)
	case errors.As(err, &large):
		return nil, fail(large.Problem, nil)
	case err != nil:
		if at, ok := errors.AsType[*fs.PathError](err); ok {
			err = at.Err // the path is named once
		}
		return nil, &FileError{Path: path, Problem: "cannot be read", Hint: "check the rights of the file and the user that runs this", Err: err}
	case len(data) == 0:
		return nil, fail("is empty", nil)
	}
	if bytes.Contains(data, []byte("-----BEGIN "+blockKey)) {
		return data, closed(path, info)
	}
	return data, nil
}

// writeNew writes a file that must not exist yet, durably.
func writeNew(path string, data []byte, perm fs.FileMode) error {
	exists := func() error {
		return &FileError{Path: path, Problem: "exists already and is not overwritten", Hint: "name another file, or remove this one if it is no longer used", Err: fs.ErrExist, said: true}
	}
	if _, err := os.Lstat(path); err == nil {
		return exists()
	}
	p, err := plainfile.CreatePendingNew(path)
	if err != nil {
		return err
	}
	defer p.Abort()
	if _, err := p.Write(data); err != nil {
		return err
	}
	if err := p.Chmod(perm); err != nil {
		return err
	}
	if err := p.Commit(); errors.Is(err, fs.ErrExist) {
		return exists()
	} else if err != nil {
		return err
	}
	return nil
}
