// Package depotcopy copies a dump directory that a sender wrote by itself (sender/depot: over NFS or SFTP, or to a local disk) into a store.
//
// The directory is only read. It is copied whole, with journal, seal and checksums of its sender, and the copy is verified before it
// gets its place in the store. So damage shows as damage, and nobody who can write to the directory can change the dump any more.
//
// All input is hostile: names, files and their contents. Links, FIFOs and devices are not opened, and no link leads out of the directory.
// A Dump is for one goroutine.
package depotcopy
