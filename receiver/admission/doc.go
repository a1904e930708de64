// Package admission decides which dumps a receiver takes, and when: a [Queue] of senders that wait for a slot,
// [Rules] that an operator wrote, the [Room] of the store and each host's share of it, and a [HostLimit] on whatever
// a host may have only so many of. It knows no wire and no connection: its callers say who waits, and tell the senders.
//
// All types are safe for concurrent use.
package admission
