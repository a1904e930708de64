package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNetwork is the network namespace of the thread that opens it.
const threadNetwork = "/proc/thread-self/ns/net"

// A namespace is a network namespace without a name. It ends when this process has closed it and all processes in it have ended, so
// that nothing is left of it even after a SIGKILL.
type namespace struct{ file *os.File }

// newNamespace makes a namespace with its loopback device up.
func newNamespace() (*namespace, error) {
	n := new(namespace)
	err := onOwnThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace, which only root may: %w", err)
		}
		n.file, err = os.Open(threadNetwork)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := n.run("ip", "link", "set", "lo", "up"); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// do runs a function on a thread in the namespace. Sockets and processes that it makes are there, and stay there.
func (n *namespace) do(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// onOwnThread runs a function on a thread that ends with it, because the function changes the thread.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and no unlock
		done <- f()
	}()
	return <-done
}

// run runs a command in the namespace to its end.
func (n *namespace) run(name string, args ...string) error {
	cmd := exec.Command(name, args...) //nolint:noctx // it configures and ends at once
	return n.do(func() error {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
		}
		return nil
	})
}

// path is a name of the namespace for ip(8), while this process has it open.
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

func (n *namespace) close() { _ = n.file.Close() }

// counters returns the bytes that a device of the namespace has sent and received.
func (n *namespace) counters(device string) (sent, received uint64, err error) {
	err = n.do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		sent, received, err = parseCounters(string(text), device)
		return err
	})
	return sent, received, err
}
