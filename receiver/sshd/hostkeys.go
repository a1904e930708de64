package sshd

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	corehaultls "github.com/corehaul/corehaul/tls"
)

// rsaBits is the length of the RSA host key, which only old clients need.
const rsaBits = 3072

// hostKeyKinds are the types of host keys, best first. Every OpenSSH client knows one of them.
var hostKeyKinds = []struct {
	file, algo string
	generate   func() (crypto.PrivateKey, error)
}{
	{"ssh_host_ed25519_key", ssh.KeyAlgoED25519, func() (crypto.PrivateKey, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}},
	{"ssh_host_ecdsa_key", ssh.KeyAlgoECDSA256, func() (crypto.PrivateKey, error) {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}},
	{"ssh_host_rsa_key", ssh.KeyAlgoRSA, func() (crypto.PrivateKey, error) {
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}},
}

// LoadHostKeys returns the host keys in the data directory. Capture kernels pin them, so a damaged one is an error and is
// never replaced. The error matches fs.ErrNotExist if there is none yet.
func LoadHostKeys(data string) (keys []ssh.Signer, err error) {
	for _, kind := range hostKeyKinds {
		key, err := loadHostKey(filepath.Join(data, kind.file), kind.algo)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// CheckHostKeys returns what is wrong with the host keys that the data directory has. A missing one is no error: MakeHostKeys makes it.
func CheckHostKeys(data string) error {
	var errs []error
	for _, kind := range hostKeyKinds {
		if _, err := loadHostKey(filepath.Join(data, kind.file), kind.algo); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// MakeHostKeys makes the missing host keys, with mode 0600.
func MakeHostKeys(data string) error {
	for _, kind := range hostKeyKinds {
		path := filepath.Join(data, kind.file)
		if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
			continue // LoadHostKeys returns the error
		}
		key, err := kind.generate()
		if err != nil {
			return fmt.Errorf("host key %s: %w", path, err)
		}
		block, err := ssh.MarshalPrivateKey(key, "corehaul")
		if err != nil {
			return fmt.Errorf("host key %s: %w", path, err)
		}
		if err := corehaultls.WriteSecret(path, pem.EncodeToMemory(block)); err != nil {
			return fmt.Errorf("host key: %w", err)
		}
	}
	return nil
}

func loadHostKey(path, algo string) (ssh.Signer, error) {
	damaged := func(problem string, err error) error {
		return &corehaultls.FileError{
			Path: path, Problem: problem, Err: err,
			Hint: "restore it from a backup; if you delete it, a new key is made, and senders that know the old one refuse to connect",
		}
	}
	text, err := corehaultls.ReadSecret(path)
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, damaged("the host key is damaged", err)
	}
	if got := key.PublicKey().Type(); got != algo {
		return nil, damaged(fmt.Sprintf("this is a key of type %s, not %s", got, algo), nil)
	}
	return key, nil
}
