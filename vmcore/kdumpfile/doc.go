// Package kdumpfile reads and writes kdump-compressed files, the format that
// makedumpfile writes and crash, libkdumpfile and drgn read.
//
// The format is described in makedumpfile's IMPLEMENTATION file and by its
// diskdump_mod.h: a main header of one block, a sub header with the ELF notes
// behind it, two bitmaps over all page frames (1st: the frame is RAM; 2nd: the
// page is in this file), one descriptor of 24 bytes per set bit of the 2nd
// bitmap in frame order, and the pages, each stored raw or compressed by itself,
// in any order. A block is as large as a page of the dumped kernel. FORMAT.md says
// what a Writer makes of it, and how a file looks before it is whole.
//
// [Reader] takes header versions 0 to 6 of 64-bit machines in either byte order,
// with pages raw or compressed by zlib, lzo, snappy or zstd; complete, incomplete
// and truncated files, and the pieces of a --split set, one by one or as a Set. It does not take 32-bit
// headers or the DISKDUMP signature of the old diskdump facility. It is safe for
// hostile input: each descriptor is checked when it is used, a page is never
// decoded beyond its size, and memory is bounded whatever the headers claim. It is
// safe for concurrent use.
//
// [Writer] writes version 6 for 64-bit machines. It lays the whole file out once
// it knows which pages are to come, takes descriptors in any order, and seals the
// file complete or partial. It needs constant memory apart from 8 bytes per 128
// MiB of RAM. The bytes in front of the page data are a pure function of a
// [Header], the planned pages and their descriptors, and can be generated
// without a file ([Header.EncodeFront], [BitmapBlocks], [PageDesc.Append]) to be
// compared with one. A Writer is not safe for concurrent use.
package kdumpfile
