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
	"path/filepath"
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

// FileError is a problem with a file of keys or certificates, with what to do next.
type FileError struct {
	// Path of the file; "identity" for one that came as bytes.
	Path    string
	Problem string
	Hint    string
	Err     error
}

// Error names the file and the problem.
func (e *FileError) Error() string {
	if e.Err == nil {
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

// parsePEM reads a file's blocks in order. Text between blocks is ignored, as
// elsewhere; a block that cannot be understood, or of a type that has no business
// here, is an error, since leaving it out would hide what is wrong.
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

// readFile reads a small regular file.
func readFile(path, hint string) ([]byte, error) {
	fail := func(problem string, err error) error {
		return &FileError{Path: path, Problem: problem, Hint: hint, Err: err}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &FileError{Path: path, Problem: "there is no such file", Hint: hint, Err: fs.ErrNotExist}
	} else if err != nil {
		return nil, &FileError{Path: path, Problem: "cannot be read", Hint: "check the rights of the file and the user that runs this", Err: err}
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fail("cannot be read", err)
	case len(data) > maxFile:
		return nil, fail(fmt.Sprintf("larger than %d bytes", maxFile), nil)
	case len(data) == 0:
		return nil, fail("is empty", nil)
	}
	return data, nil
}

// writeNew writes a file that must not exist yet, durably.
func writeNew(path string, data []byte, perm fs.FileMode) error {
	exists := func() error {
		return &FileError{Path: path, Problem: "exists already and is not overwritten", Hint: "name another file, or remove this one if it is no longer used", Err: fs.ErrExist}
	}
	if _, err := os.Lstat(path); err == nil {
		return exists()
	}
	tmp, err := writeTemp(path, data, perm)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	// A link, unlike a rename, does not replace a file that came in between. Some file
	// systems (FAT) have none.
	err = os.Link(tmp, path)
	switch {
	case err == nil:
		err = os.Remove(tmp)
	case errors.Is(err, fs.ErrExist):
		return errors.Join(exists(), os.Remove(tmp))
	default:
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeTemp(path string, data []byte, perm fs.FileMode) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp") // with rights 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
