package tls

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
)

// Pin is the SHA-256 of a public key (SubjectPublicKeyInfo in DER). A sender recognises its receiver by it.
type Pin [sha256.Size]byte

// PinOf returns the pin of a certificate's key.
func PinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// String returns the pin as "sha256:" and 64 hex digits.
func (p Pin) String() string { return "sha256:" + hex.EncodeToString(p[:]) }

// PinError says that the receiver has another key than the sender expects: another machine answers at that address,
// or the receiver has a new key.
type PinError struct {
	Got  Pin
	Want []Pin
}

// Error shows both pins.
func (e *PinError) Error() string {
	return fmt.Sprintf("receiver's key is not the pinned one: it has %s, pinned is %s", e.Got, pinList(e.Want))
}

// Hints says what to do next.
func (e *PinError) Hints() []string {
	return []string{"if the receiver has a new key, issue this host's identity again with 'corehaul ca issue'; if not, something else answers at this address"}
}

func pinList(pins []Pin) string {
	var texts []string
	for _, p := range pins {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, " or ")
}

// checkPin returns a PinError unless cert has one of the pins.
func checkPin(cert *x509.Certificate, pins []Pin) error {
	got := PinOf(cert)
	for _, want := range pins {
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			return nil
		}
	}
	return &PinError{Got: got, Want: pins}
}
