package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/storage/stores"
)

// socketName is the server's local socket in the data directory. Only the server's user and root may open it.
const socketName = "control.sock"

const (
	statusPath = "/v1/status"
	reloadPath = "/v1/reload"
	// maxStatusBytes bounds what a server may answer: a thousand sessions are half a megabyte.
	maxStatusBytes = 64 << 20
	controlTimeout = 10 * time.Second
	dialTimeout    = 2 * time.Second
	// reloadTimeout bounds a reload: the files of keys and certificates may lie on a slow disk.
	reloadTimeout = time.Minute
)

// control answers other processes of this machine on the local socket.
type control struct {
	http     *http.Server
	handover *handover
	ended    sync.WaitGroup
	failed   error
}

// socketPath returns the path of the server's socket: flag, or the one in the data directory.
func (a *app) socketPath(flag string) (string, error) { return socketPath(a.data, flag) }

func socketPath(data, flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	dir, err := stores.Dir(data)
	return filepath.Join(dir, socketName), err
}

// shorterSocket is a hint (sun_path in unix(7), with a zero at the end).
const shorterSocket = "a socket path can have at most 107 bytes; choose a shorter one with --socket PATH"

// controlAnswers are what the server answers.
type controlAnswers struct {
	status func(context.Context) serverStatus
	reload func() reloadResult
}

// openControl starts to answer on the socket at path, and takes connections that are handed over.
func openControl(ctx context.Context, path string, answers controlAnswers, log *slog.Logger) (*control, error) {
	l, err := listenControl(ctx, path)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, document any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(document); err != nil {
			log.Debug("an answer was not taken", "error", err)
		}
	}
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, r *http.Request) { answer(w, answers.status(r.Context())) })
	mux.HandleFunc("POST "+reloadPath, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(reloadTimeout)) // a socket has deadlines
		answer(w, answers.reload())
	})
	handed := newHandover()
	mux.HandleFunc("POST "+receivePath, handed.handler(log))
	c := &control{handover: handed, http: &http.Server{
		Handler: mux, ReadHeaderTimeout: controlTimeout, WriteTimeout: controlTimeout, IdleTimeout: controlTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	c.ended.Go(func() {
		if err := c.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.failed = fmt.Errorf("control socket: %w", err)
		}
	})
	return c, nil
}

// close stops answering and removes the socket.
func (c *control) close() error {
	err := c.http.Close()
	c.ended.Wait()
	return errors.Join(err, c.failed)
}

// listenControl creates the socket. It replaces the socket of a dead server.
func listenControl(ctx context.Context, path string) (net.Listener, error) {
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer unlock()
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: private}
	l, err := lc.Listen(ctx, "unix", path)
	if errors.Is(err, syscall.EINVAL) {
		err = cli.WithHint(err, shorterSocket)
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// private sets the socket's mode before bind gives it a name: later, others could connect meanwhile.
func private(_, _ string, conn syscall.RawConn) error {
	var chmod error
	err := conn.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), 0o600) })
	return errors.Join(err, chmod)
}

// lockDir prevents that two servers that start at once take each other's socket for a stale one.
func lockDir(dir string) (unlock func(), err error) {
	d, err := plainfile.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "flock", Path: dir, Err: err}, d.Close())
	}
	return func() { _ = d.Close() }, nil // only opened to be locked
}

// removeStale removes the socket of a server that is dead.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return cli.WithHint(fmt.Errorf("control socket: %s exists and is not a socket", path), "choose another path with --socket PATH")
	}
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close() // the server lives
		return cli.WithHint(fmt.Errorf("another server uses the control socket %s", path),
			"stop it, or start this server with another --data or --socket")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("control socket: cannot tell whether a server listens there: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// askStatus asks the server at path what it does.
func askStatus(ctx context.Context, path string) (*serverStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	st := new(serverStatus)
	return st, ask(ctx, path, http.MethodGet, statusPath, st)
}

// ask sends a request to the server at path, and decodes the answer.
func ask(ctx context.Context, path, method, what string, answer any) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://corehaul"+what, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return noServer(path, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		err := fmt.Errorf("the server at %s answers %s", path, resp.Status)
		if resp.StatusCode == http.StatusNotFound {
			err = cli.WithHint(err, "it is of an older version: restart it")
		}
		return err
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatusBytes)).Decode(answer); err != nil {
		return fmt.Errorf("answer of the server at %s: %w", path, err)
	}
	return nil
}

// noServer explains an error of the connection to the socket.
func noServer(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return cli.WithHint(fmt.Errorf("no server is running: no process listens on %s", path),
			"start it with 'corehaul serve', or name its data directory with --data DIR or its socket with --socket PATH")
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the socket of the server: %w", &fs.PathError{Op: "connect to", Path: path, Err: fs.ErrPermission})
	}
	return err
}
