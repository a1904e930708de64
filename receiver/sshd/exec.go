package sshd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/kdumpclients"
	"github.com/corehaul/corehaul/receiver/sshd/command"
)

// exitFailure is the status of a command that failed.
const exitFailure = 1

// shell runs the operations of stock clients' command lines on the tree of their host.
type shell struct {
	tree kdumpclients.Tree
	in   io.Reader
	out  io.Writer
	errs io.Writer
	// alive returns nil if the client itself ended in. A broken connection looks the same.
	alive func() error
	note  func(what string, args ...any) // to the log
}

// exec runs a command line.
func (ch *channel) exec(ctx context.Context, line string) {
	script, err := command.Parse(line)
	if err != nil || ch.c.srv.cfg.Trees == nil {
		ch.noCommand(line, err)
		return
	}
	conn := newChannelConn(ch)
	defer conn.end()
	defer context.AfterFunc(ctx, func() { _ = conn.closeWith(exitFailure) })()
	tree, err := ch.c.tree()
	if err != nil {
		ch.reportError(reason(err), exitFailure)
		_ = conn.closeWith(exitFailure)
		return
	}
	client := &idleConn{channelConn: conn, limit: ch.c.srv.cfg.ClientIdle}
	sh := &shell{tree: tree, in: client, out: client, errs: client.stderr(), alive: ch.alive, note: ch.c.failed}
	start := time.Now()
	status := sh.run(script)
	if n := ch.c.commands.Add(1); logged(n) {
		ch.c.log.Info("command", "command", clip(line), "commands", n, "status", status, "took", time.Since(start).Round(time.Millisecond))
	}
	_ = conn.closeWith(status)
}

// tree returns the files of the connection's host.
func (c *connection) tree() (kdumpclients.Tree, error) {
	tree, err := c.srv.cfg.Trees(kdumpclients.Peer{Host: c.entry.Host, Addr: c.ssh.RemoteAddr().String()})
	if err != nil {
		c.log.Error("cannot open the files of a host", "error", err)
	}
	return tree, err
}

// enrolHint is the answer to clients that try to install their key.
const enrolHint = "keys cannot be enrolled over SSH: give the public key to the operator of this server, who adds it to the authorized keys with host=\"NAME\""

// noCommand refuses an unknown command.
func (ch *channel) noCommand(line string, err error) {
	text := "this server runs no commands"
	switch {
	case line == "":
		text = "this server has no shell"
	case strings.Contains(line, "authorized_keys"):
		text = enrolHint // ssh-copy-id
	case err != nil:
		text = err.Error()
	}
	ch.c.refuse("refused a command", protocol.CodeDeclined, "command", clip(line), "error", text)
	ch.reportError(text, exitNotFound)
	_ = ch.finish(exitNotFound) // the peer may be gone
}

// alivePatience is how long a client may take to answer alive.
const alivePatience = time.Minute

// alive asks the client whether it is still connected.
func (ch *channel) alive() error {
	timer := time.AfterFunc(alivePatience, func() { _ = ch.c.ssh.Close() })
	defer timer.Stop()
	if _, err := ch.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// run returns the exit status.
func (s *shell) run(script command.Script) (status uint32) {
	for _, chain := range script {
		for _, op := range chain {
			if _, exit := op.(command.Exit); exit {
				return status
			}
			if status = s.do(op); status != exitOK {
				break
			}
		}
	}
	return status
}

// do runs one operation. It reports an error like the program of that name.
func (s *shell) do(op command.Op) uint32 {
	var err error
	var what string
	switch op := op.(type) {
	case command.Umask:
		return exitOK
	case command.SCP:
		return s.scp(op)
	case command.List:
		return s.list(op.Path)
	case command.Mkdir:
		what = fmt.Sprintf("mkdir: cannot create directory '%s'", op.Path)
		err = s.mkdir(op)
	case command.Move:
		what = fmt.Sprintf("mv: cannot move '%s' to '%s'", op.From, op.To)
		err = s.tree.Rename(op.From, op.To)
	case command.Rmdir:
		what = fmt.Sprintf("rmdir: failed to remove '%s'", op.Path)
		err = s.tree.Rmdir(op.Path)
	case command.Mktemp:
		what = fmt.Sprintf("mktemp: failed to create directory in '%s'", op.Parent)
		err = s.mktemp(op.Parent)
	case command.Free:
		what = fmt.Sprintf("df: %s", op.Path)
		err = s.free(op)
	case command.Echo:
		what = fmt.Sprintf("echo: %s", op.Path)
		err = s.write(op.Path, strings.NewReader(op.Text+"\n"), func() error { return nil })
	case command.Cat:
		what = fmt.Sprintf("cat: %s", op.Path)
		err = s.write(op.Path, s.in, s.alive)
	case command.DD:
		what = fmt.Sprintf("dd: failed to write '%s'", op.Path)
		err = s.dd(op)
	}
	if err != nil {
		s.say(what, err)
		return exitFailure
	}
	return exitOK
}

// say reports an error to the client and the log.
func (s *shell) say(what string, err error) {
	text := reason(err)
	var end *endError
	if errors.As(err, &end) {
		text = end.Error()
	}
	_, _ = fmt.Fprintf(s.errs, "%s: %s\n", what, text) // the client may be gone
	s.note("a command failed", "what", clip(what), "error", clip(err.Error()))
}

func (s *shell) mkdir(op command.Mkdir) error {
	if op.Parents {
		return s.tree.MkdirAll(op.Path)
	}
	return s.tree.Mkdir(op.Path)
}

func (s *shell) mktemp(parent string) error {
	dir, err := s.tree.MkdirTemp(parent)
	if err == nil {
		_, err = fmt.Fprintln(s.out, dir)
	}
	return err
}

// free prints the output of df, in KiB. It counts only space that the host may use.
func (s *shell) free(op command.Free) error {
	n, err := s.tree.Free(op.Path)
	if err != nil {
		return err
	}
	kib := n >> 10
	text := fmt.Sprintf("%10s\n%10d\n", "Avail", kib)
	if op.POSIX {
		text = fmt.Sprintf("Filesystem     1024-blocks  Used  Available Capacity Mounted on\n%-14s %11d %5d %10d %8s %s\n", "corehaul", kib, 0, kib, "0%", "/")
	}
	_, err = io.WriteString(s.out, text)
	return err
}

// list prints the output of ls -l.
func (s *shell) list(p string) uint32 {
	info, err := s.tree.Stat(p)
	entries := []fs.FileInfo{info}
	name := p
	if err == nil && info.IsDir() {
		name = ""
		if entries, err = s.tree.ReadDir(p); err == nil {
			_, err = fmt.Fprintln(s.out, "total 0")
		}
	}
	if err != nil {
		s.say(fmt.Sprintf("ls: cannot access '%s'", p), err)
		return 2 // as ls does
	}
	for _, e := range entries {
		shown := name
		if shown == "" {
			shown = e.Name()
		}
		_, err := fmt.Fprintf(s.out, "%s 1 root root %d %s %s\n", e.Mode(), e.Size(), e.ModTime().UTC().Format("Jan _2 15:04"), shown)
		if err != nil {
			return 2
		}
	}
	return exitOK
}

// endError is an error at the end of a file, whose text is for the client.
type endError struct{ err error }

func (e *endError) Error() string {
	if r := reason(e.err); r != reason(nil) {
		return r
	}
	return strings.ReplaceAll(e.err.Error(), "\n", "; ")
}

func (e *endError) Unwrap() error { return e.err }

// write writes the bytes of in to a file. alive says whether the client ended in.
func (s *shell) write(p string, in io.Reader, alive func() error) error {
	_, err := s.copy(p, in, alive)
	return err
}

func (s *shell) copy(p string, in io.Reader, alive func() error) (n int64, err error) {
	u, err := s.create(p)
	if err != nil {
		return 0, err
	}
	n, err = u.fill(in)
	if err == nil {
		if err = alive(); err != nil {
			u.TransferError(err)
		}
	}
	if end := u.Close(); err == nil && end != nil {
		err = &endError{end}
	}
	return n, err
}

func (s *shell) create(p string) (*upload, error) {
	u, err := s.tree.Create(p)
	if err != nil {
		return nil, err
	}
	return &upload{Upload: u}, nil
}

// dd writes a file and reports how much, like GNU dd, because clients keep its output in their logs.
func (s *shell) dd(op command.DD) error {
	start := time.Now()
	n, err := s.copy(op.Path, s.in, s.alive)
	var records string
	if n%op.BlockSize > 0 {
		records = fmt.Sprintf("%d+1", n/op.BlockSize)
	} else {
		records = fmt.Sprintf("%d+0", n/op.BlockSize)
	}
	took := max(time.Since(start), time.Microsecond).Seconds()
	size := fmt.Sprintf("%d bytes", n)
	if n >= 1000 {
		size += fmt.Sprintf(" (%s, %s)", humanize.Bytes(uint64(n)), humanize.IBytes(uint64(n)))
	}
	_, _ = fmt.Fprintf(s.errs, "%s records in\n%s records out\n%s copied, %.6g s, %s/s\n", records, records, size, took, humanize.Bytes(uint64(float64(n)/took)))
	return err
}

// scp is the remote end of scp's old protocol.
func (s *shell) scp(op command.SCP) uint32 {
	p := &scp{shell: s, in: bufio.NewReaderSize(s.in, transferBytes), times: op.Times}
	var err error
	switch {
	case op.Recursive:
		err = &scpError{text: "directories cannot be copied: leave out -r"}
	case op.Receive:
		err = p.receive(op.Path, op.Directory)
	default:
		err = p.send(op.Path)
	}
	if err == nil {
		return exitOK
	}
	s.note("scp failed", "path", clip(op.Path), "error", clip(err.Error()))
	var told *scpError
	if !errors.As(err, &told) {
		told = &scpError{text: fmt.Sprintf("%s: %s", op.Path, reason(err)), err: err}
	}
	_, _ = fmt.Fprintf(s.out, "\x02scp: %s\n", strings.ReplaceAll(told.text, "\n", " "))
	return exitFailure
}

// base returns the last part of a client's path.
func base(p string) string { return path.Base(path.Clean("/" + p)) }
