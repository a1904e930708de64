package clitest

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/outputtest"
)

// A Screen is a pseudo-terminal and what programs write to it.
type Screen struct {
	TTY *os.File // where programs write

	master *os.File
	seen   outputtest.Buffer
	done   chan struct{}
}

// Terminal opens a pseudo-terminal of so many columns and 24 lines.
func Terminal(tb testing.TB, columns uint16) *Screen {
	tb.Helper()
	s, err := openTerminal(columns)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// Seen returns what was written so far.
func (s *Screen) Seen() string { return strings.ReplaceAll(s.seen.String(), "\r\n", "\n") }

// End closes the terminal, and returns all that was written.
func (s *Screen) End() string {
	_ = s.TTY.Close()
	<-s.done
	_ = s.master.Close()
	return s.Seen()
}

func openTerminal(columns uint16) (*Screen, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: 24}); err != nil {
		return nil, err
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	s := &Screen{TTY: tty, master: master, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_, _ = io.Copy(&s.seen, master) // it ends with an error when the last writer has gone
	}()
	return s, nil
}
