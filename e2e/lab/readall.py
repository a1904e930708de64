"""Read every page of a dump with libkdumpfile; print count and digest as JSON.

The digest is the SHA-256 over all pages that the file has, in the order of
their frame numbers, each preceded by the frame number as a little-endian u64.
Pages that the file says were left out are not errors; anything else is. Where one
was left out of a kdump-compressed file, its page map tells which one comes next: most
are, and asking for each takes ten times as long.
"""
import hashlib
import json
import struct
import sys

import kdumpfile
from kdumpfile.exceptions import NoDataException


def following(ctx, pfn):
    """The next page frame after pfn to ask for."""
    if ctx.attr["file.format"] != "diskdump":
        return pfn + 1  # the map of an ELF core does not have pages that are there in part
    try:
        return ctx.attr["file.pagemap"].find_set(pfn + 1)
    except NoDataException:
        return ctx.attr["max_pfn"]


def main(path):
    ctx = kdumpfile.kdumpfile(path)
    page_size, end = ctx.attr["arch.page_size"], ctx.attr["max_pfn"]
    digest, count, pfn = hashlib.sha256(), 0, 0
    while pfn < end:
        try:
            page = ctx.read(kdumpfile.KDUMP_MACHPHYSADDR, pfn * page_size, page_size)
        except NoDataException:
            pfn = following(ctx, pfn)
            continue
        digest.update(struct.pack("<Q", pfn))
        digest.update(page)
        count += 1
        pfn += 1
    print(json.dumps({"count": count, "sha256": digest.hexdigest()}))


main(sys.argv[1])
