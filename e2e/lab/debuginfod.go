package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// Debuginfod is a server of elfutils on the loopback address.
type Debuginfod struct {
	URL string
	cmd *exec.Cmd
}

// StartDebuginfod starts a server of one file, in the directory dir, and waits until it has found the file by its build id. Stop ends it.
func StartDebuginfod(ctx context.Context, dir, file, buildID string) (*Debuginfod, error) {
	files := filepath.Join(dir, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		return nil, err
	}
	if err := os.Symlink(file, filepath.Join(files, filepath.Base(file))); err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the server has its own descriptor
	// The server outlives the context of a call. Stop ends it. Without the lists of source files, it takes a second for a vmlinux.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "debuginfod",
		"--scan-file-dir", "--logical", "--database=:memory:", "--disable-source-scan", "--port="+strconv.Itoa(port), files)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &Debuginfod{fmt.Sprintf("http://127.0.0.1:%d", port), cmd}
	if err := s.ready(ctx, buildID); err != nil {
		s.Stop()
		text, readErr := os.ReadFile(log.Name())
		return nil, errors.Join(fmt.Errorf("lab: debuginfod: %w: %s", err, tail(string(text), 5)), readErr)
	}
	return s, nil
}

// ready waits until the server has the file.
func (s *Debuginfod) ready(ctx context.Context, buildID string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		// The server does not know HEAD before 0.190.
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/buildid/"+buildID+"/debuginfo", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close() // unread: the connection ends
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Stop ends the server.
func (s *Debuginfod) Stop() {
	_ = s.cmd.Process.Kill() // it may have ended
	_ = s.cmd.Wait()         // killed
}
