package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
)

// ErrForeignCA is the cause of an [UntrustedError] for a certificate of another CA.
var ErrForeignCA = errors.New("issued by a CA that is not this receiver's")

// RefusedError says that the other side ended the handshake with a TLS alert. It may tell an unknown peer no more.
type RefusedError struct {
	// Reason is the alert in words.
	Reason string
	Hint   string
	Err    error
}

// Error returns the alert in words.
func (e *RefusedError) Error() string { return "the other side refused the connection: " + e.Reason }

// Unwrap returns the alert of crypto/tls.
func (e *RefusedError) Unwrap() error { return e.Err }

// Hints says what to do next.
func (e *RefusedError) Hints() []string {
	if e.Hint == "" {
		return nil
	}
	return []string{e.Hint}
}

// alerts by their text in crypto/tls, because their type is not exported.
var alerts = map[string]RefusedError{
	"tls: unknown certificate authority": {
		Reason: "another CA issued this identity",
		Hint:   "issue the identity with the CA directory of this receiver",
	},
	"tls: bad certificate": {
		Reason: "this identity is not accepted (revoked, or not for a sending host)",
		Hint:   "the receiver's log says why",
	},
	"tls: certificate required": {
		Reason: "an identity is required",
		Hint:   "name an identity file with --identity",
	},
	"tls: protocol version not supported": {Reason: "no common TLS version; corehaul speaks TLS 1.3"},
	"tls: no application protocol":        {Reason: "it does not speak corehaul at this address"},
}

// Explain explains an error of a TLS connection: it returns an [UntrustedError] or [ErrNoCertificate] in a receiver,
// a [RefusedError] in a sender, and any other error unchanged. In TLS 1.3 a client's handshake ends before the server
// has checked the certificate, so a sender must also pass the errors of its first reads and writes.
func Explain(err error) error {
	if e, ok := errors.AsType[*cryptotls.CertificateVerificationError](err); ok && len(e.UnverifiedCertificates) > 0 {
		return untrusted(e.UnverifiedCertificates[0], shortCause(e.Err))
	}
	// crypto/tls has no value for this error, and the caller may have wrapped it.
	if err != nil && strings.Contains(err.Error(), "tls: client didn't provide a certificate") {
		return fmt.Errorf("%w: %w", ErrNoCertificate, err)
	}
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return err
	}
	known, ok := alerts[op.Err.Error()]
	if !ok {
		known.Reason = op.Err.Error()
	}
	known.Err = err
	return &known
}

// shortCause returns the usual cause without the peer's words.
func shortCause(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return ErrForeignCA
	}
	return err
}
