// Package admission decides which dumps a receiver takes, and when. It has a [Queue] of senders that wait for a slot,
// the operator's [Rules], the [Room] of the store and each host's share of it, and a [HostLimit], which bounds the
// number of something for each host. It knows neither wire nor connections: its callers say who waits, and tell senders.
//
// All types are safe for concurrent use.
package admission
