// Package watch takes in the dumps that others write into directories of this machine: senders with a target nfs://, sftp:// or file://, and
// stock kdump clients, on an export or an SFTP area that lies here or is mounted here.
//
//	DIR/dumps/HOST/TIME-ID/     a dump directory of package dumpdir, wherever it is below DIR
//	DIR/<address>-<date>/...    what package crashtree finds
//
// A Watcher only reads these directories. A dump directory is copied whole, the copy is verified, and then it gets its place in the
// store. Files of kdump are imported by crashtree. A look at a directory finds changes by names, lengths and times; inotify(7) only says
// that a look is due, because it does not tell what other machines write to a mounted file system.
//
// What was taken is noted in the file watch.json (see memory), so nothing is taken twice, even after its dump was removed from the store.
//
// All input is hostile: names, files and their contents, and how many there are. Each watched directory has one goroutine. If its file system
// hangs, so does this goroutine, and nothing else.
package watch
