package sshd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// scp is one side of the protocol of scp before OpenSSH 9 (and of scp -O): lines and bytes, each answered by a zero byte, or by
// 1 or 2 and a line with an error.
//
//	T<mtime> 0 <atime> 0      times of the next file
//	C<mode> <size> <name>     a file; its bytes follow, and a zero byte
//	D..., E                   directories, which are refused
type scp struct {
	*shell
	in    *bufio.Reader
	times bool
}

// scpError is an error with a text for the client.
type scpError struct {
	text string
	err  error
}

func (e *scpError) Error() string {
	if e.err != nil {
		return fmt.Sprintf("%s (%v)", e.text, e.err)
	}
	return e.text
}

func (e *scpError) Unwrap() error { return e.err }

const (
	// scpLine bounds a line: a name and two numbers.
	scpLine = 4 << 10
	// scpFiles bounds the files of one run.
	scpFiles = 1024
)

// ok accepts a line.
func (p *scp) ok() error {
	_, err := p.out.Write([]byte{0})
	return err
}

// receive receives files: into the directory to, or as the file to if that is no directory.
func (p *scp) receive(to string, mustBeDir bool) error {
	info, err := p.tree.Stat(to)
	isDir := err == nil && info.IsDir()
	if !isDir && (mustBeDir || strings.HasSuffix(to, "/")) {
		if err == nil {
			return &scpError{text: to + ": Not a directory"}
		}
		if err := p.tree.MkdirAll(to); err != nil {
			return &scpError{text: fmt.Sprintf("%s: %s", to, reason(err)), err: err}
		}
		isDir = true
	}
	if err := p.ok(); err != nil {
		return err
	}
	for range scpFiles {
		line, err := p.line()
		if errors.Is(err, io.EOF) {
			return p.alive()
		}
		if err != nil {
			return err
		}
		if err := p.message(line, to, isDir); err != nil {
			return err
		}
	}
	return &scpError{text: fmt.Sprintf("more than %d files", scpFiles)}
}

// line reads a line without its end. io.EOF is the end of the stream before a line.
func (p *scp) line() (string, error) {
	var line []byte
	for len(line) < scpLine {
		c, err := p.in.ReadByte()
		switch {
		case errors.Is(err, io.EOF) && len(line) > 0:
			return "", io.ErrUnexpectedEOF
		case err != nil:
			return "", err
		case c == '\n':
			return string(line), nil
		}
		line = append(line, c)
	}
	return "", &scpError{text: "protocol error: a line without an end"}
}

// message handles a line of the client.
func (p *scp) message(line, to string, isDir bool) error {
	if line == "" {
		return &scpError{text: "protocol error: an empty line"}
	}
	switch line[0] {
	case 'T': // times of files are not kept
		return p.ok()
	case 'C':
		size, name, ok := parseFile(line[1:])
		if !ok {
			return &scpError{text: "protocol error: no file in a C line"}
		}
		if isDir {
			to = path.Join(to, name)
		}
		return p.file(to, size)
	case 'D', 'E':
		return &scpError{text: "directories cannot be copied"}
	case 1: // the client could not read a file and goes on
		p.note("scp: the client warns", "text", clip(line[1:]))
		return nil
	case 2:
		return &scpError{text: "the client gave up", err: errors.New(clip(line[1:]))}
	}
	return &scpError{text: "protocol error: an unknown message"}
}

// parseFile reads "<mode> <size> <name>".
func parseFile(text string) (size int64, name string, ok bool) {
	mode, rest, _ := strings.Cut(text, " ")
	digits, name, _ := strings.Cut(rest, " ")
	if _, err := strconv.ParseUint(mode, 8, 16); err != nil {
		return 0, "", false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return 0, "", false
	}
	return int64(n), name, true
}

// file receives one file.
func (p *scp) file(to string, size int64) error {
	u, err := p.create(to)
	if err != nil {
		return &scpError{text: fmt.Sprintf("%s: %s", to, reason(err)), err: err}
	}
	err = p.bytes(u, size)
	if end := u.Close(); err == nil && end != nil {
		err = &endError{end}
	}
	var write *writeError
	var end *endError
	if errors.As(err, &write) || errors.As(err, &end) {
		return &scpError{text: fmt.Sprintf("%s: %v", to, err), err: err}
	}
	if err != nil {
		return err
	}
	return p.ok()
}

// bytes receives the bytes of a file, and the client's answer that they are right.
func (p *scp) bytes(u *upload, size int64) error {
	if err := p.ok(); err != nil {
		u.TransferError(err)
		return err
	}
	n, err := u.fill(io.LimitReader(p.in, size))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	var word byte
	if err == nil {
		if word, err = p.in.ReadByte(); errors.Is(err, io.EOF) {
			err = p.alive() // libssh2 ends the stream instead
		}
	}
	if err == nil && word != 0 {
		text, _ := p.line()
		err = fmt.Errorf("the client could not read its file: %s", clip(text))
	}
	if err != nil {
		u.TransferError(err)
	}
	return err
}

// send sends a file.
func (p *scp) send(from string) error {
	if err := p.answer(); err != nil {
		return err
	}
	info, err := p.tree.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return &scpError{text: from + ": not a regular file"}
	}
	d, err := p.tree.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // read-only
	if err := p.head(from, info, d.Size()); err != nil {
		return err
	}
	if n, err := io.Copy(p.out, io.NewSectionReader(d, 0, d.Size())); err != nil || n != d.Size() {
		return &scpError{text: from + ": cannot be read", err: err}
	}
	if err := p.ok(); err != nil {
		return err
	}
	return p.answer()
}

// head announces a file.
func (p *scp) head(from string, info fs.FileInfo, size int64) error {
	lines := []string{fmt.Sprintf("C0600 %d %s\n", size, base(from))}
	if p.times {
		at := info.ModTime().Unix()
		lines = append([]string{fmt.Sprintf("T%d 0 %d 0\n", at, at)}, lines...)
	}
	for _, line := range lines {
		if _, err := io.WriteString(p.out, line); err != nil {
			return err
		}
		if err := p.answer(); err != nil {
			return err
		}
	}
	return nil
}

// answer waits until the client accepts.
func (p *scp) answer() error {
	c, err := p.in.ReadByte()
	if err != nil {
		return err
	}
	if c != 0 {
		text, _ := p.line()
		return &scpError{text: "the client refused the file", err: errors.New(clip(text))}
	}
	return nil
}
