// Package sshdial is an SSH client for a capture kernel: one key, pinned hosts, no user to
// ask.
//
// A Client logs in with a private key without a passphrase. It trusts only the hosts in a
// known_hosts file of OpenSSH (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): plain and hashed
// names, [HOST]:PORT, wildcards, @cert-authority and @revoked. There is no trust on first
// use. Like OpenSSH, it asks a host only for types of keys that are known for it, so that
// a host with several keys shows one that can be checked. Certificates of hosts have
// dates. Nothing else depends on the clock.
//
// Servers are hostile until their key was checked. Their texts are cleaned and shortened.
// A Client is safe for concurrent use.
package sshdial
