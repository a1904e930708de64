// Package crashtree imports the dumps that kdump has left on a disk: in the /var/crash trees of Red Hat, Debian, Ubuntu and SUSE, and in
// files of any name.
//
//	<address>-<date>/vmcore, vmcore.flat, vmcore-incomplete, vmcore-dmesg.txt, kexec-dmesg.log   Red Hat
//	<stamp>/dump.<stamp>, dump-incomplete.<stamp>, dmesg.<stamp>                                 Debian, Ubuntu
//	<date>/vmcore, README.txt, dmesg, System.map-*                                               SUSE
//	dumps/<host>/<time>-<id>/                                                                    corehaul-send, by package depotcopy
//
// [Walk] finds them, and an [Importer] makes dumps of a store of them. What a file says decides the id of its dump, so a second import
// finds the first one. Nothing here writes to the tree. Files are opened for reading, without following links. FIFOs and devices are not
// opened.
//
// A file that was compressed as a whole is unpacked into a file without a name. A SHA256SUMS in the same directory is compared.
//
// All input is hostile: the names in the tree and the contents of the files. Memory depends on the number of files in one directory, and a
// decompressor takes up to 128 MiB.
// An Importer is for one goroutine. Other processes may use its store at the same time.
package crashtree
