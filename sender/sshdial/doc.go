// Package sshdial is the client side of SSH for a capture kernel: one key, pinned hosts,
// nobody to ask.
//
// A Client logs in with a private key without a passphrase and believes only hosts that a
// known_hosts file of OpenSSH's form (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT) names: plain and
// hashed names, [HOST]:PORT, wildcards, @cert-authority and @revoked. There is no trust on
// first use. As OpenSSH does, it asks a host only for keys of the kinds that are known for
// it, so that a host with several keys shows one that can be checked. Certificates of hosts
// have dates; everything else holds whatever the clock says.
//
// Servers are hostile until their key was seen, and what they say is quoted and cut short.
// A Client is safe for concurrent use.
package sshdial
