// Package tls holds the identities of corehaul: a small certificate authority, the
// receiver's key, one identity file for each sending host, and the mutual TLS
// configurations made of them. Import it as corehaultls beside crypto/tls.
//
// # Trust
//
// A receiver knows a sender by a client certificate that chains to its CA; the host
// name in the certificate is where dumps are filed. A sender knows its receiver by a
// pin, the SHA-256 of the receiver's public key (SubjectPublicKeyInfo, DER), and by
// nothing else: neither names nor times can make a pinned connection fail, because
// clocks and name service in capture kernels are wrong or missing. For the same
// reason certificates are valid from 1970 to the end of 9999, and neither side looks
// at a clock. What ends an identity is not time but Authorize of [ServerConfig].
//
// Only TLS 1.3 is spoken, without session tickets, over the ALPN protocol "corehaul".
//
// # Files
//
// [InitCA] leaves these in its directory (rights 0700), and refuses if any is there:
//
//	ca.crt        CA certificate, PEM, rights 0644
//	ca.key        CA key, PKCS #8 PEM, 0600; only needed to issue identities
//	receiver.crt  the receiver's certificate, PEM, 0644
//	receiver.key  the receiver's key, PKCS #8 PEM, 0600
//
// [IssueHost] writes one identity file (0600): the host's certificate, its key, the CA
// certificate, and one or more blocks "COREHAUL RECEIVER PIN" of 32 bytes each. It is
// all that a sender needs, and a secret. Files are written under a temporary name
// that ends in .tmp and renamed; an interrupted run may leave such a file behind.
//
// All keys are ECDSA P-256. Files and peers are untrusted input: sizes are bounded,
// and nothing in them makes the package panic. Values are safe for concurrent use.
//
// Not supported: intermediate CAs, encrypted keys, revocation lists, keys in hardware.
package tls
