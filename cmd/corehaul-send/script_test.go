package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/cmd/internal/clitest"
	"github.com/corehaul/corehaul/internal/outputtest"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender/sshdial/sshdialtest"
	corehaultls "github.com/corehaul/corehaul/tls"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		name:               func() { os.Exit(cli.Main(name, run)) },
		name + "-commands": clitest.Commands(name, run), // for tests of the lab
	})
}

// TestScripts runs the scripts of testdata/script. Besides testscript's own commands they
// have "exits CODE PROGRAM ARG..."; in their directory are core.elf, a dump of 64 pages of
// no known kernel, identity files of two authorities, and in $PARTIAL,
// $DECLINE and $HANG the addresses of receivers that seal early, decline, and never answer; $SSH
// is one over SSH that seals early, and $BARE an SSH server that has nothing; key and
// known_hosts for them are in $SSH_FILES and $BARE_FILES.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "usr1": usr1, "screens": clitest.Screens(t)},
		Setup: func(env *testscript.Env) error {
			return setup(t, env)
		},
	})
}

// exits runs a program and compares its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v exits %d, want %d", args[1:], got, want)
	}
}

// usr1 runs a program, hangs up its terminal and sends it SIGUSR1 until the answer is on its standard error, then
// interrupts it, and wants exit code 130 and a word of what is stored.
func usr1(ts *testscript.TestScript, _ bool, args []string) {
	var out outputtest.Buffer
	cmd := exec.CommandContext(context.Background(), args[1], args[2:]...)
	cmd.Dir, cmd.Stderr = ts.MkAbs("."), &out
	cmd.Env = append(os.Environ(), "HOME="+ts.MkAbs("."))
	ts.Check(cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	for deadline := time.Now().Add(time.Minute); !bytes.Contains(out.Bytes(), []byte(args[0])); {
		if time.Now().After(deadline) {
			ts.Fatalf("no %q in %q", args[0], out.Bytes())
		}
		// Before the handler is there the signal would end the program.
		if bytes.Contains(out.Bytes(), []byte("warning")) {
			ts.Check(cmd.Process.Signal(syscall.SIGHUP)) // whose handling is set up even earlier
			ts.Check(cmd.Process.Signal(syscall.SIGUSR1))
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != int(cli.ExitInterrupted) {
		ts.Fatalf("interrupted: %v, want exit code 130; %s", err, out.Bytes())
	}
	if !bytes.Contains(out.Bytes(), []byte(" has the log, safely stored\nhint: the same command continues the dump")) {
		ts.Fatalf("interrupted: %s", out.Bytes())
	}
}

func setup(t *testing.T, env *testscript.Env) error {
	t.Helper()
	for file, data := range map[string][]byte{"core.elf": tinyCore(64), "short.elf": tinyCore(64)[:100], "empty": nil, "init": tinyCore(0)[:120]} {
		if err := os.WriteFile(filepath.Join(env.WorkDir, file), data, 0o600); err != nil {
			return err
		}
	}
	for _, ca := range []string{"ca", "otherca"} {
		dir := filepath.Join(env.WorkDir, ca)
		if _, err := corehaultls.InitCA(dir); err != nil {
			return err
		}
		id, err := corehaultls.IssueHost(dir, "web-17")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(env.WorkDir, ca+".pem"), id, 0o600); err != nil {
			return err
		}
	}
	conf, err := corehaultls.ServerConfig(filepath.Join(env.WorkDir, "ca"))
	if err != nil {
		return err
	}
	for name, serve := range map[string]func(*protocol.Conn) error{"PARTIAL": sealEarly, "DECLINE": decline, "HANG": hang} {
		env.Setenv(name, "tls://"+listen(t, env, conf, serve))
	}
	for name, subsystems := range map[string]map[string]func(ssh.Channel){"BARE": nil, "SSH": {"corehaul": func(ch ssh.Channel) {
		conn := protocol.NewConn(ch, protocol.Receiver)
		_ = conn.Shutdown(sealEarly(conn), time.Second)
	}}} {
		s := sshdialtest.Start(t, subsystems, "ed25519")
		env.Setenv(name, "ssh://dumps@"+s.Addr)
		env.Setenv(name+"_FILES", filepath.Dir(s.KeyFile))
	}
	return nil
}

// listen serves connections one after the other until the script ends.
func listen(t *testing.T, env *testscript.Env, conf *tls.Config, serve func(*protocol.Conn) error) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conn := protocol.NewConn(tls.Server(c, conf), protocol.Receiver)
			_ = conn.Shutdown(serve(conn), time.Second)
		}
	}()
	env.Defer(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// takeLog plays a receiver until the log is stored.
func takeLog(c *protocol.Conn) error {
	for {
		m, err := c.Read()
		if err != nil {
			return err
		}
		if end, ok := m.(*protocol.LogEnd); ok {
			return c.Write(&protocol.LogStored{Bytes: end.Bytes})
		}
	}
}

func sealEarly(c *protocol.Conn) error {
	if err := takeLog(c); err != nil {
		return err
	}
	return c.Write(&protocol.Sealed{State: protocol.StatePartial, ID: "some-id", Pages: 1, Missing: 63})
}

func decline(c *protocol.Conn) error {
	if err := takeLog(c); err != nil {
		return err
	}
	return &protocol.Error{Code: protocol.CodeDeclined, Text: "too many of these", Hint: "see the rules"}
}

// hang stores the log and then says nothing until the peer goes.
func hang(c *protocol.Conn) error {
	if err := takeLog(c); err != nil {
		return err
	}
	_, err := c.Read()
	return err
}

// tinyCore is an ELF core of x86_64 with one PT_LOAD of so many pages and no notes.
func tinyCore(pages int) []byte {
	const page, dataOff, paddr = 4096, 4096, 16 << 20
	b := make([]byte, dataOff+pages*page)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 4) // ET_CORE
	le.PutUint16(b[18:], 62)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	ph := b[64:]
	le.PutUint32(ph[0:], 1) // PT_LOAD
	le.PutUint32(ph[4:], 7)
	le.PutUint64(ph[8:], dataOff)
	le.PutUint64(ph[16:], 0xffff888000000000+paddr)
	le.PutUint64(ph[24:], paddr)
	size := uint64(pages) * page
	le.PutUint64(ph[32:], size)
	le.PutUint64(ph[40:], size)
	for i := range pages {
		copy(b[dataOff+i*page:], "page "+strconv.Itoa(i))
	}
	return b
}
