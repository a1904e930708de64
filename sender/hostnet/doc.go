// Package hostnet says how the running machine reaches an address, in terms of a capture kernel: the card below the VLANs,
// bonds and bridges of the route's interface, and the [network] configuration with which a capture kernel reaches the
// address in the same way.
//
// Routes, addresses and links come from the kernel by rtnetlink(7), cards from sysfs. Nothing is changed, and no right is needed.
// Interfaces of kinds that a capture kernel cannot make again are errors of type *LayerError. Teams, tunnels and WireGuard are
// such, and so are two VLANs on top of each other.
package hostnet
