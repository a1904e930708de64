package tls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/corehaul/corehaul/hostname"
)

// Files of a CA directory.
const (
	caCertFile       = "ca.crt"
	caKeyFile        = "ca.key"
	receiverCertFile = "receiver.crt"
	receiverKeyFile  = "receiver.key"
)

// maxCommonName is the limit of X.520. The common name is for people. Programs use the DNS name.
const maxCommonName = 64

// The widest dates of certificates, because no clock is trusted (RFC 5280: 9999-12-31 23:59:59 means "no end").
var (
	notBefore = time.Unix(0, 0).UTC()
	notAfter  = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)
	// fixedTime is the time for both sides' checks.
	fixedTime = time.Date(2030, time.January, 1, 0, 0, 0, 0, time.UTC)
)

// InitCA creates a CA and a receiver's key in dir and returns the receiver's pin. It creates dir if needed, with mode
// 0700. If one of its files exists, it refuses and changes nothing. Directories above dir that it creates are open to
// others, so that the service's user can reach dir.
func InitCA(dir string) (Pin, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Pin{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Pin{}, err
	}
	for _, name := range []string{caCertFile, caKeyFile, receiverCertFile, receiverKeyFile} {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil {
			return Pin{}, &FileError{
				Path: path, Problem: "exists already and is not overwritten",
				Hint: "use this CA, or name another directory: hosts that trust this CA would refuse a new one", Err: fs.ErrExist, said: true,
			}
		}
	}
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Pin{}, err
	}
	// The number distinguishes the CAs of two sites in messages.
	name := "corehaul CA " + hex.EncodeToString(id[:])
	ca, err := newSigned(caTemplate(name), nil)
	if err != nil {
		return Pin{}, err
	}
	receiver, err := newSigned(receiverTemplate(), ca.pair())
	if err != nil {
		return Pin{}, err
	}
	if err := ca.write(dir, caCertFile, caKeyFile); err != nil {
		return Pin{}, err
	}
	if err := receiver.write(dir, receiverCertFile, receiverKeyFile); err != nil {
		return Pin{}, err
	}
	return PinOf(receiver.cert), nil
}

// IssueHost returns an identity file for a host, signed by the CA in dir and with its receiver's pin: see the package
// comment. Package hostname has the rule for names. A second identity of the same name is equally valid.
func IssueHost(dir, host string) ([]byte, error) {
	if err := hostname.Check(host); err != nil {
		return nil, err
	}
	ca, err := loadPair(dir, caCertFile, caKeyFile)
	if err != nil {
		return nil, err
	}
	if !ca.cert.IsCA {
		return nil, &FileError{Path: filepath.Join(dir, caCertFile), Problem: "not the certificate of a CA", Hint: hintDir}
	}
	receiver, err := loadCert(filepath.Join(dir, receiverCertFile))
	if err != nil {
		return nil, err
	}
	leaf, err := newSigned(hostTemplate(host), ca)
	if err != nil {
		return nil, err
	}
	key, err := keyPEM(leaf.key)
	if err != nil {
		return nil, err
	}
	out := fmt.Appendf(nil, "# corehaul identity of host %s, with its private key: keep it secret.\n", host)
	for _, part := range [][]byte{certPEM(leaf.cert), key, certPEM(ca.cert), pinPEM(PinOf(receiver))} {
		out = append(out, part...)
	}
	return out, nil
}

// WriteIdentity writes the result of IssueHost to a new file with mode 0600. It does not overwrite a file.
func WriteIdentity(path string, identity []byte) error { return WriteSecret(path, identity) }

// WriteSecret writes a new file with mode 0600, durably: with all bytes or not at all. It does not overwrite a file;
// the error then matches fs.ErrExist.
func WriteSecret(path string, data []byte) error { return writeNew(path, data, 0o600) }

// signed is a new certificate with its key.
type signed struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newSigned makes a key and a certificate, signed by issuer, or self-signed if issuer is nil.
func newSigned(template *x509.Certificate, issuer *pair) (*signed, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	parent, signer := template, crypto.Signer(key)
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &signed{cert: cert, key: key}, nil
}

func (s *signed) pair() *pair { return &pair{cert: s.cert, key: s.key} }

// write writes the key first: a certificate without a key would look complete.
func (s *signed) write(dir, certName, keyName string) error {
	key, err := keyPEM(s.key)
	if err != nil {
		return err
	}
	if err := writeNew(filepath.Join(dir, keyName), key, 0o600); err != nil {
		return err
	}
	return writeNew(filepath.Join(dir, certName), certPEM(s.cert), 0o644)
}

func template(commonName string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName[:min(len(commonName), maxCommonName)]},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
}

func caTemplate(name string) *x509.Certificate {
	t := template(name)
	t.IsCA, t.MaxPathLenZero = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return t
}

func receiverTemplate() *x509.Certificate {
	t := template("corehaul receiver")
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.DNSNames = []string{"corehaul-receiver"}
	return t
}

func hostTemplate(host string) *x509.Certificate {
	t := template(host)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	t.DNSNames = []string{host}
	return t
}
