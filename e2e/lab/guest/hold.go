package main

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	hugePage = 2 << 20
	// holding is the message of a holder that has its memory.
	holding = "holding"
)

// pageLen is the page size of this kernel: 4096, or 16384 on some arm64 kernels.
var pageLen = os.Getpagesize()

// hold holds memory of one kind until the panic. It returns only after an error.
func hold(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want KIND BYTES, got %q", args)
	}
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := holdKind(args[0], size); err != nil {
		return err
	}
	fmt.Println(holding)
	_ = os.Stdout.Sync()
	// Not select{}, which the runtime reports as a deadlock.
	for {
		_ = unix.Pause()
	}
}

func holdKind(kind string, size int) error {
	switch kind {
	case "random", "freed":
		return holdAnon(size, 0, fillRandom)
	case "text":
		return holdAnon(size, 0, fillText)
	case "zero":
		return holdAnon(size, 0, fillZero)
	case "hugetlb":
		return holdAnon(size, unix.MAP_HUGETLB, fillText)
	case "thp":
		return holdTHP(size)
	case "cow":
		return holdCOW(size)
	case "shm":
		return holdShm(size)
	case "poison":
		return holdPoison(size)
	}
	return fmt.Errorf("unknown kind %q", kind)
}

// anon maps anonymous memory for good.
func anon(size, flags int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|flags)
}

// small prevents huge pages in b, because Debian enables transparent huge pages for all
// mappings.
func small(b []byte) error { return unix.Madvise(b, unix.MADV_NOHUGEPAGE) }

func holdAnon(size, flags int, fill func([]byte, uint64)) error {
	b, err := anon(size, flags)
	if err != nil {
		return err
	}
	if flags&unix.MAP_HUGETLB == 0 {
		if err := small(b); err != nil {
			return err
		}
	}
	fill(b, 1)
	return nil
}

func holdTHP(size int) error {
	b, err := anon(size, 0)
	if err != nil {
		return err
	}
	if err := unix.Madvise(b, unix.MADV_HUGEPAGE); err != nil {
		return err
	}
	fillText(b[:size/2], 2)
	fillRandom(b[size/2:], 2)
	return nil
}

// holdCOW shares memory with a forked child, which writes every fourth page.
func holdCOW(size int) error {
	b, err := anon(size, 0)
	if err != nil {
		return err
	}
	if err := small(b); err != nil {
		return err
	}
	fillText(b, 3)
	return forkWriter(b)
}

// holdShm holds a System V segment, which is a file in the kernel's internal tmpfs.
func holdShm(size int) error {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, size, unix.IPC_CREAT|0o600)
	if err != nil {
		return err
	}
	b, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return err
	}
	fillRandom(b[:size/2], 4)
	fillText(b[size/2:], 4)
	return nil
}

// holdPoison poisons every second page of some anonymous memory, which keeps its
// mapping, and one page of the page cache, which loses it.
func holdPoison(size int) error {
	b, err := anon(2*size, 0)
	if err != nil {
		return err
	}
	if err := small(b); err != nil {
		return err
	}
	fillText(b, 5)
	for off := 0; off < len(b); off += 2 * pageLen {
		if err := poisonPage(b[off:]); err != nil {
			return err
		}
	}
	f, err := os.Open(cacheFile)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	page, err := unix.Mmap(int(f.Fd()), 0, pageLen, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	return poisonPage(page)
}

// poisonPage touches the first page of b and poisons it.
func poisonPage(b []byte) error {
	if len(b) < pageLen || b[0] == 0 {
		return fmt.Errorf("%d bytes are no page with text", len(b))
	}
	return unix.Madvise(b[:pageLen], unix.MADV_HWPOISON)
}
