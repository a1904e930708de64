// Package disk finds file systems on the block devices of a machine by the UUID or label in their superblocks, and mounts them
// in a capture kernel, which has no udev, no mount(8) and no /etc/fstab.
//
// It knows ext4 (and ext3 and ext2, which the kernel's ext4 mounts), XFS and Btrfs. It never writes to a device itself, formats
// or repairs nothing, and refuses what it might damage: a file system with recorded errors, one that two devices have, a member
// of an array.
//
// Superblocks are hostile input: reading is bounded and nothing is allocated by their values. A Mounts is safe for concurrent
// use.
package disk
