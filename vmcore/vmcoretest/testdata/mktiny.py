#!/usr/bin/env python3
"""mktiny.py VMCORE OUT: cuts a core of about 26 pages out of a real x86-64
/proc/vmcore with 4-level page tables: the notes, the pages without which
makedumpfile -d 1 gives up (utsname, mem_section, the page tables that lead to
them), and a little low memory, the end of it within a page."""

import struct
import sys

PAGE = 4096
PHDR = "<IIQQQQQQ"

src = open(sys.argv[1], "rb")
ehdr = src.read(64)
phdrs = []
for i in range(struct.unpack_from("<H", ehdr, 56)[0]):
    src.seek(64 + 56 * i)
    phdrs.append(struct.unpack(PHDR, src.read(56)))
note = next(p for p in phdrs if p[0] == 4)
text, *ram = (p for p in phdrs if p[0] == 1)
src.seek(note[2])
notes = src.read(note[5])
direct = ram[0][3] - ram[0][4]  # PAGE_OFFSET


def symbol(name):
    at = notes.index(b"SYMBOL(%s)=" % name)
    return int(notes[at:].split(b"=")[1].split(b"\n")[0], 16)


def phys(va):
    if text[3] <= va < text[3] + text[5]:
        return va - text[3] + text[4]
    return va - direct


def read(pa, size):
    for p in ram:
        if p[4] <= pa < p[4] + p[5]:
            src.seek(p[2] + pa - p[4])
            return src.read(size)
    sys.exit("no memory at %#x" % pa)


pages = {phys(symbol(b"init_uts_ns")) & -PAGE, phys(symbol(b"swapper_pg_dir"))}
roots = symbol(b"mem_section")
root = struct.unpack("<Q", read(phys(roots), 8))[0]
pages |= {phys(roots) + i * PAGE for i in range(4)}
pages.add(phys(root) & -PAGE)
for va in (symbol(b"init_uts_ns"), roots, roots + 4 * PAGE - 1, root):
    table = phys(symbol(b"swapper_pg_dir"))
    for shift in (39, 30, 21, 12):
        pages.add(table)
        entry = struct.unpack("<Q", read(table + ((va >> shift) & 511) * 8, 8))[0]
        if shift < 39 and entry & 0x80:
            break
        table = entry & 0xFFFFFFFFFF000

loads = []
for pa in sorted(pages):
    in_text = text[4] <= pa < text[4] + text[5]
    va = pa - text[4] + text[3] if in_text else pa + direct
    if loads and loads[-1][1] + len(loads[-1][2]) == pa and loads[-1][0] + len(loads[-1][2]) == va:
        loads[-1][2] += read(pa, PAGE)
    else:
        loads.append([va, pa, read(pa, PAGE)])
loads.append([direct + 0x1000, 0x1000, read(0x1000, 0x4C00)])
loads.append([direct + 0x100000, 0x100000, read(0x100000, 0x4000)])

off = -(-(64 + 56 * (1 + len(loads)) + len(notes)) // PAGE) * PAGE
head = bytearray(ehdr)
struct.pack_into("<H", head, 56, 1 + len(loads))
head += struct.pack(PHDR, 4, 0, 64 + 56 * (1 + len(loads)), 0, 0, len(notes), len(notes), 0)
body = b""
for va, pa, data in loads:
    head += struct.pack(PHDR, 1, 7, off + len(body), va, pa, len(data), len(data), 0)
    body += data + bytes(-len(data) % PAGE)
head += notes
with open(sys.argv[2], "wb") as out:
    out.write(head + bytes(off - len(head)) + body)
