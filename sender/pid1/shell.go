package pid1

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/sender/config"
)

// activePath names the terminals of the kernel's console, the one of /dev/console last (Documentation/ABI/testing/sysfs-tty).
const activePath = "/sys/class/tty/console/active"

// terminal returns the device of the kernel's console. /dev/console itself cannot be a controlling terminal, without which Ctrl-C would
// not reach the programs of a shell.
func (r *runner) terminal() string {
	text, err := r.sys.readFile(activePath)
	names := strings.Fields(string(text))
	if err != nil || len(names) == 0 {
		return config.DefaultConsole
	}
	return path.Join("/dev", path.Base(names[len(names)-1]))
}

// runShell lets people look at the machine after the dump, until they leave the shell.
func (r *runner) runShell(out Outcome) {
	terminal := r.terminal()
	r.console.Printf("%s; a shell is on %s, and 'exit' reboots", out.Line, terminal)
	env := append([]string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/", "TERM=linux"}, out.env()...)
	if err := r.sys.shell(terminal, env); err != nil {
		r.console.Printf("warning: shell: %v; rebooting in %.0f s", err, failurePause.Seconds())
		r.sys.pause(failurePause)
		return
	}
	r.console.Printf("rebooting")
}

func (linux) shell(terminal string, env []string) error {
	if _, err := os.Stat(config.ShellPath); err != nil {
		return fmt.Errorf("the image has none: pack it with shell = \"FILE\" or after = \"shell\" in its configuration: %w", err)
	}
	return startShell(config.ShellPath, terminal, env)
}

// startShell runs a shell on a terminal to its end. How it ends is what the people there want.
func startShell(shell, terminal string, env []string) error {
	tty, err := os.OpenFile(terminal, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = tty.Close() }() // a terminal has no late errors
	cmd := exec.CommandContext(context.Background(), shell)
	// A file with the programs of busybox takes its name for the one to run.
	cmd.Args, cmd.Env, cmd.Dir = []string{"sh"}, env, "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: terminal != config.DefaultConsole}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = cmd.Wait() // the exit code is that of its last command
	return nil
}
