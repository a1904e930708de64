package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ALPN is the application protocol in the handshake. HELLO and WELCOME negotiate the protocol version.
const ALPN = "corehaul"

// ErrNoCertificate says that a client showed no certificate.
var ErrNoCertificate = errors.New("the client shows no certificate")

// baseConfig is the common configuration of both sides.
func baseConfig(own cryptotls.Certificate) *cryptotls.Config {
	return &cryptotls.Config{
		Certificates: []cryptotls.Certificate{own},
		MinVersion:   cryptotls.VersionTLS13,
		NextProtos:   []string{ALPN},
		Time:         func() time.Time { return fixedTime },
		// Tickets depend on the clock, and would admit a revoked host for their lifetime.
		SessionTicketsDisabled: true,
	}
}

// ServerConfig returns the configuration of the receiver whose files InitCA wrote to dir. To revoke identities, use
// [LoadReceiver].
func ServerConfig(dir string) (*cryptotls.Config, error) {
	r, err := LoadReceiver(dir)
	if err != nil {
		return nil, err
	}
	return r.ServerConfig(), nil
}

// ServerConfig returns a configuration that accepts clients with a client certificate that r.CA issued to one host,
// unless r.Authorize refuses it. [PeerName] returns the host, [Explain] the reason of a failed handshake. The fields
// of r must not change afterwards.
func (r *Receiver) ServerConfig() *cryptotls.Config {
	cfg := baseConfig(r.Certificate)
	cfg.ClientAuth = cryptotls.RequireAndVerifyClientCert
	cfg.ClientCAs = x509.NewCertPool()
	cfg.ClientCAs.AddCert(r.CA)
	cfg.VerifyConnection = func(state cryptotls.ConnectionState) error {
		host, err := PeerName(&state)
		if err != nil || r.Authorize == nil {
			return err
		}
		if err := r.Authorize(host, state.PeerCertificates[0]); err != nil {
			return &NotAuthorizedError{Host: host, Err: err}
		}
		return nil
	}
	return cfg
}

// PeerName returns the host name of the client of a connection with a ServerConfig. It returns an error if the
// certificate is missing, was not verified, or does not name exactly one host.
func PeerName(state *cryptotls.ConnectionState) (string, error) {
	if len(state.PeerCertificates) == 0 {
		return "", ErrNoCertificate
	}
	cert := state.PeerCertificates[0]
	if len(state.VerifiedChains) == 0 {
		return "", untrusted(cert, errors.New("certificate was not verified"))
	}
	host, err := hostOf(cert)
	if err != nil {
		return "", untrusted(cert, err)
	}
	return host, nil
}

// ClientConfig returns a configuration that shows id and accepts a receiver with one of its pins, whatever names and
// dates the receiver's certificate has. Another key is a [PinError]. The fields of id must not change afterwards.
func ClientConfig(id *Identity) *cryptotls.Config {
	cfg := baseConfig(id.Certificate)
	// The pin replaces the verification of chain, name and dates. VerifyConnection runs for every handshake, and TLS
	// 1.3 proves that the peer has the key.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(state cryptotls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the receiver shows no certificate")
		}
		return checkPin(state.PeerCertificates[0], id.Pins)
	}
	// Otherwise a client of another CA would show no certificate, and neither side's error would name the reason.
	cfg.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
		return &id.Certificate, nil
	}
	return cfg
}

// UntrustedError says that a client's certificate was not issued by the receiver's CA, or not for a sending host.
type UntrustedError struct {
	// Subject and Issuer of the certificate, not verified.
	Subject, Issuer string
	Err             error
}

func untrusted(cert *x509.Certificate, err error) error {
	return &UntrustedError{Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), Err: err}
}

// Error quotes the certificate, which is the peer's text.
func (e *UntrustedError) Error() string {
	return fmt.Sprintf("certificate of %.128q by %.128q is not trusted: %v", e.Subject, e.Issuer, e.Err)
}

// Unwrap returns the cause.
func (e *UntrustedError) Unwrap() error { return e.Err }

// NotAuthorizedError says that Receiver.Authorize refused a host.
type NotAuthorizedError struct {
	Host string
	Err  error
}

// Error names the host and the reason.
func (e *NotAuthorizedError) Error() string {
	return fmt.Sprintf("host %s is refused: %v", e.Host, e.Err)
}

// Unwrap returns the error of Authorize.
func (e *NotAuthorizedError) Unwrap() error { return e.Err }
