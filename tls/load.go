package tls

import (
	"crypto"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/corehaul/corehaul/hostname"
)

const (
	hintDir      = "create the directory with 'corehaul ca init', or restore it from a backup"
	hintIdentity = "get a new file for this host with 'corehaul ca issue HOST -o FILE'"
)

// pair is a certificate and its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (p *pair) tls() cryptotls.Certificate {
	return cryptotls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
}

// Identity is a sender's certificate and the receivers that it trusts.
type Identity struct {
	// Host is the name in the certificate.
	Host string
	// Certificate of the host, with its key.
	Certificate cryptotls.Certificate
	// CA of the certificate.
	CA *x509.Certificate
	// Pins of the trusted receivers; at least one.
	Pins []Pin
}

// LoadIdentity reads an identity file. A [FileError] says what is wrong with it.
func LoadIdentity(path string) (*Identity, error) {
	data, err := readFile(path, hintIdentity)
	if err != nil {
		return nil, err
	}
	return parseIdentity(path, data)
}

// parseIdentity reads the contents of the identity file at path.
func parseIdentity(path string, data []byte) (*Identity, error) {
	fail := func(problem string, err error) (*Identity, error) {
		return nil, &FileError{Path: path, Problem: problem, Hint: hintIdentity, Err: err}
	}
	b, err := parsePEM(data)
	switch {
	case err != nil:
		return fail("not an identity file", err)
	case len(b.certs)+len(b.keys)+len(b.pins) == 0:
		return fail("not an identity file: no PEM block in it", nil)
	case len(b.certs) == 0:
		return fail("no certificate in it", nil)
	case len(b.keys) != 1:
		return fail(fmt.Sprintf("%d private keys in it, want one", len(b.keys)), nil)
	case len(b.pins) == 0:
		return fail("no receiver's pin in it: this host would trust no receiver", nil)
	case !keyFits(b.certs[0], b.keys[0]):
		return fail("the private key does not belong to the first certificate", nil)
	case len(b.certs) != 2:
		return fail(fmt.Sprintf("%d certificates in it, want the host's and the CA's", len(b.certs)), nil)
	}
	leaf, ca := b.certs[0], b.certs[1]
	host, err := hostOf(leaf)
	if err != nil {
		return fail("the certificate names no host", err)
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return fail("the certificate was not issued by the CA beside it", err)
	}
	p := pair{cert: leaf, key: b.keys[0]}
	return &Identity{Host: host, Certificate: p.tls(), CA: ca, Pins: b.pins}, nil
}

// hostOf returns the one host name of a host's certificate.
func hostOf(cert *x509.Certificate) (string, error) {
	if len(cert.DNSNames) != 1 {
		return "", fmt.Errorf("%d names in the certificate, want one", len(cert.DNSNames))
	}
	host := cert.DNSNames[0]
	if err := hostname.Check(host); err != nil {
		return "", fmt.Errorf("%w; issue an identity with another name", err)
	}
	return host, nil
}

// Receiver is a receiver's certificate and the hosts that it trusts.
type Receiver struct {
	// Certificate of the receiver, with its key.
	Certificate cryptotls.Certificate
	// CA whose hosts may send.
	CA *x509.Certificate
	// Authorize, if not nil, may refuse a host whose certificate is valid, by an error. It is called once for each
	// connection, from many goroutines. Use it to revoke identities.
	Authorize func(host string, cert *x509.Certificate) error
}

// LoadReceiver reads ca.crt, receiver.crt and receiver.key of a CA directory. It does not need ca.key. A [FileError]
// says what is wrong. The error of several files is that of errors.Join.
func LoadReceiver(dir string) (*Receiver, error) {
	ca, err := loadCert(filepath.Join(dir, caCertFile))
	if err == nil && !ca.IsCA {
		err = &FileError{Path: filepath.Join(dir, caCertFile), Problem: "not the certificate of a CA", Hint: hintDir}
	}
	own, ownErr := loadPair(dir, receiverCertFile, receiverKeyFile)
	if err = errors.Join(err, ownErr); err != nil {
		return nil, err
	}
	return &Receiver{Certificate: own.tls(), CA: ca}, nil
}

// loadCert reads a file with exactly one certificate.
func loadCert(path string) (*x509.Certificate, error) {
	b, err := loadBundle(path)
	if err != nil {
		return nil, err
	}
	if len(b.certs) != 1 || len(b.keys) != 0 {
		return nil, &FileError{Path: path, Problem: fmt.Sprintf("%d certificates and %d keys in it, want one certificate", len(b.certs), len(b.keys)), Hint: hintDir}
	}
	return b.certs[0], nil
}

func loadBundle(path string) (*bundle, error) {
	data, err := readFile(path, hintDir)
	if err != nil {
		return nil, err
	}
	b, err := parsePEM(data)
	if err != nil {
		return nil, &FileError{Path: path, Problem: "not a PEM file of corehaul", Hint: hintDir, Err: err}
	}
	return b, nil
}

// loadPair reads a certificate and the key that belongs to it.
func loadPair(dir, certName, keyName string) (*pair, error) {
	cert, err := loadCert(filepath.Join(dir, certName))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, keyName)
	b, err := loadBundle(path)
	if err != nil {
		return nil, err
	}
	if len(b.keys) != 1 || len(b.certs) != 0 {
		return nil, &FileError{Path: path, Problem: fmt.Sprintf("%d keys and %d certificates in it, want one key", len(b.keys), len(b.certs)), Hint: hintDir}
	}
	if !keyFits(cert, b.keys[0]) {
		return nil, &FileError{Path: path, Problem: "does not belong to " + certName + " beside it", Hint: hintDir}
	}
	return &pair{cert: cert, key: b.keys[0]}, nil
}
