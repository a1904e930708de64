// Package sshd is the receiver's SSH server. Peers prove themselves with a key of the authorized keys
// file, which binds the key to a host. The server receives dumps over the subsystem "corehaul", and
// from stock kdump clients: with the commands of package command, scp (both of its protocols) and
// SFTP, on the host's tree of package kdumpclients.
//
// It is not a login server. It executes nothing, and has no shell, no terminal and no forwarding. User
// names mean nothing, and passwords are refused. All bytes of a peer are hostile input, before and
// after its authentication. All types are safe for concurrent use.
package sshd
