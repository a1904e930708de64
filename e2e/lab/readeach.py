"""Read the pages of many dumps with libkdumpfile; one line of JSON for each.

Takes the paths on standard input, one a line. An answer has "refused", why the file
cannot be read at all, or "page_size" and "pages": the first 16 digits of the SHA-256
of each page by its frame number, or null for a page that is promised and cannot be
read; and "cut", whether there are more. Promised are the pages of the page map of a kdump-compressed file, and the
frames that the PT_LOADs of an ELF core have bytes of. Files are read in processes of
their own, which may crash, grow or hang without harm; after a file that cannot be read,
or has a page that cannot, another one goes on.
"""
import hashlib
import itertools
import json
import os
import resource
import struct
import sys
import time

import kdumpfile
from kdumpfile.exceptions import NoDataException

SECONDS = 120  # of CPU time, so that a busy machine changes no answer
MEMORY = 2 << 30
FILES = 16  # no more are read by one process: what they leave behind in libkdumpfile adds up
FRAMES = 1024  # no more pages of a file are read
FAILURES = 40  # nor more that cannot be read


def loads(path):
    """The PT_LOADs of a 64-bit ELF core: paddr and filesz."""
    with open(path, "rb") as f:
        head = f.read(1 << 16)
    order = "<" if head[5] == 1 else ">"
    phoff, = struct.unpack_from(order + "Q", head, 32)
    size, num = struct.unpack_from(order + "HH", head, 54)
    for at in range(phoff, min(phoff + size * num, len(head) - 55), size or 56):
        kind, = struct.unpack_from(order + "I", head, at)
        paddr, filesz = struct.unpack_from(order + "QQ", head, at + 24)
        if kind == 1 and filesz and paddr != 2**64 - 1:
            yield paddr, filesz


def promised(ctx, path, page_size):
    """The page frames that the dump says it has."""
    if ctx.attr["file.format"] == "elf":
        frames = set()
        for paddr, filesz in loads(path):
            first, end = paddr // page_size, (paddr + filesz + page_size - 1) // page_size
            frames.update(range(first, min(end, first + FRAMES + 1)))
        yield from sorted(frames)
        return
    pfn = -1
    while True:
        try:
            pfn = ctx.attr["file.pagemap"].find_set(pfn + 1)
        except NoDataException:
            return
        if pfn >= ctx.attr["max_pfn"]:
            return
        yield pfn


def failures(pages):
    return sum(digest is None for digest in pages.values())


def say(out, *words):
    os.write(out, (json.dumps(words) + "\n").encode())


def frames_of(path, out):
    """The open file, its page size and its first page frames, or None if it is refused."""
    try:
        ctx = kdumpfile.kdumpfile(path)
        if ctx.attr["file.format"] not in ("elf", "diskdump"):
            say(out, "refused", "another format: " + ctx.attr["file.format"])
            return None
        page_size = ctx.attr["arch.page_size"]
        frames = list(itertools.islice(promised(ctx, path, page_size), FRAMES + 1))
    except Exception as err:
        say(out, "refused", f"{type(err).__name__}: {err}")
        return None
    say(out, "page_size", page_size)
    say(out, "cut", len(frames) > FRAMES)
    return ctx, page_size, frames[:FRAMES]


def read_pages(path, pages, alone, out):
    """Tell what is known of a file, then of each page that is not in pages: first that it is tried, then its digest.

    Return whether to read another file. After a page that cannot be read the file is opened again: 0.5.1 loses a place of its
    cache then, or worse. So another process does that if this one has read other files before.
    """
    opened = frames_of(path, out)
    if opened is None:
        return False
    ctx, page_size, frames = opened
    pages = dict(pages)
    whole = True
    for pfn in frames:
        if pfn in pages:
            continue
        say(out, "page", pfn, None)
        pages[pfn] = None
        try:
            page = ctx.read(kdumpfile.KDUMP_MACHPHYSADDR, pfn * page_size, page_size)
        except Exception:
            if not alone:
                return False
            if failures(pages) == FAILURES:
                say(out, "cut", True)
                break
            ctx, whole = kdumpfile.kdumpfile(path), False
            continue
        pages[pfn] = hashlib.sha256(page).hexdigest()[:16]
        say(out, "page", pfn, pages[pfn])
    say(out, "end")
    return whole


def child(paths, pages, out):
    """Read files one after the other; of the first one, pages are known."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for i, path in enumerate(paths):
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + SECONDS, resource.RLIM_INFINITY))
        say(out, "file")
        if not read_pages(path, {} if i else pages, i == 0, out):
            return


def blank():
    return {"pages": {}, "cut": False}


def turn(paths, answer):
    """Run a child; return the answers up to the file in which it ended, and whether there is more to ask of that one."""
    back, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(back)
            child(paths, answer["pages"], out)
        finally:
            os._exit(0)
    os.close(out)
    with os.fdopen(back) as f:
        said = [json.loads(line) for line in f]
    _, status = os.waitpid(pid, 0)
    answers, heard, more = [], False, False
    for word, *args in said:
        if word == "file":
            answers.append(blank() if answers else answer)
            heard = more = False
            continue
        heard, more = True, word == "page"
        if word == "page":
            answers[-1]["pages"][args[0]] = args[1]
        elif word != "end":
            answers[-1][word] = args[0]
    if not heard:
        answers = answers or [answer]
        answers[-1]["refused"] = f"libkdumpfile ended with status {status}"
    if len(answers) > 1 and (more or "refused" in answers[-1]):
        answers.pop()  # it fails for itself, or for nothing that was read before it
        more = False
    return answers, more


def main():
    paths = [line.rstrip("\n") for line in sys.stdin]
    answer = blank()
    while paths:
        answers, more = turn(paths[:FILES], answer)
        if more and failures(answers[-1]["pages"]) >= FAILURES:
            answers[-1]["cut"], more = True, False
        answer = answers.pop() if more else blank()
        for a in answers:
            print(json.dumps(a), flush=True)
        paths = paths[len(answers):]


main()
