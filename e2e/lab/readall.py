"""Read every page of a dump with libkdumpfile; print count and digest as JSON.

The digest is the SHA-256 over all pages that the file has, in the order of
their frame numbers, each preceded by the frame number as a little-endian u64.
Pages that the file says were left out are not errors; anything else is.
"""
import hashlib
import json
import struct
import sys

import kdumpfile
from kdumpfile.exceptions import NoDataException


def main(path):
    ctx = kdumpfile.kdumpfile(path)
    page_size = ctx.attr["arch.page_size"]
    digest, count = hashlib.sha256(), 0
    for pfn in range(ctx.attr["max_pfn"]):
        try:
            page = ctx.read(kdumpfile.KDUMP_MACHPHYSADDR, pfn * page_size, page_size)
        except NoDataException:
            continue
        digest.update(struct.pack("<Q", pfn))
        digest.update(page)
        count += 1
    print(json.dumps({"count": count, "sha256": digest.hexdigest()}))


main(sys.argv[1])
