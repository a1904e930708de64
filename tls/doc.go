// Package tls holds the identities of corehaul: a small certificate authority, the receiver's key, an identity file
// for each sending host, and the mutual TLS configurations for them. Import it as corehaultls beside crypto/tls.
//
// # Trust
//
// A receiver knows a sender by a client certificate that chains to its CA. Dumps are filed under the host name in the
// certificate. A sender knows its receiver only by a pin, the SHA-256 of the receiver's public key
// (SubjectPublicKeyInfo, DER). Names and times cannot make a pinned connection fail, because clocks and name service
// of capture kernels are wrong or missing. Therefore certificates are valid from 1970 to the end of 9999, and neither
// side reads a clock. Authorize of [ServerConfig] revokes an identity.
//
// Only TLS 1.3 is spoken, without session tickets, over the ALPN protocol "corehaul".
//
// # Files
//
// [InitCA] writes these files to its directory (mode 0700), and refuses if one of them exists:
//
//	ca.crt        CA certificate, PEM, rights 0644
//	ca.key        CA key, PKCS #8 PEM, 0600; only needed to issue identities
//	receiver.crt  the receiver's certificate, PEM, 0644
//	receiver.key  the receiver's key, PKCS #8 PEM, 0600
//
// [IssueHost] returns an identity file: the host's certificate, its key, the CA certificate, and one or more blocks
// "COREHAUL RECEIVER PIN" of 32 bytes each. It is all that a sender needs, and a secret. Files are written with a
// temporary name that ends in .tmp, and renamed. An interrupted run may leave such a file.
//
// All keys are ECDSA P-256. Files and peers are untrusted input: sizes are bounded,
// and nothing in them makes the package panic. Values are safe for concurrent use.
//
// Not supported: intermediate CAs, encrypted keys, revocation lists, keys in hardware.
package tls
