// Package arm makes the running machine ready to dump: it packs the image of a capture kernel for this machine and loads it
// (Arm), takes it away (Disarm), and says whether a crash would give a dump (Look).
//
// The image never has a name in a file system, because it holds the keys of the machine: it is packed into memory, and gone
// when the kernel has its copy. What stays is a record of what was loaded, below Dir, with checksums and no secrets. Dir is on
// a file system in memory, so the record goes with the loaded image when the machine reboots.
//
// The kernel does not tell which image is loaded. So the command line of the capture kernel has the record's id
// (corehaul.image=ID), and Look reads it from the reserved memory where the kernel shows that. An Arm that is killed leaves
// the old image or the new one, and the record of each until it is known which.
//
// All paths lie below a root directory, which is / but for tests. Arm and Disarm need root's rights, and exclude each
// other. Values are not safe for concurrent use.
package arm
