// Package sshd is the receiver's SSH server: it takes dumps from whoever holds a key of the
// authorized keys file, as the host that the key is bound to: over the subsystem "corehaul", and from
// stock kdump clients with the commands of package command, scp (both of its protocols) and SFTP, on
// the host's tree of package stock.
//
// It is not a login server. It executes nothing, has no shell, no terminal and no
// forwarding; names of users mean nothing to it; passwords are never taken. What comes from a peer is hostile
// input, before and after it has shown its key. All types are safe for concurrent use.
package sshd
