package initrd

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/corehaul/corehaul/sender/config"
)

// busyboxes are where distributions have busybox, for a shell that the configuration does not name.
var busyboxes = []string{"/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/usr/sbin/busybox"}

// addShell packs the shell that the configuration asks for.
func (p *packer) addShell(cfg *config.File) error {
	switch {
	case cfg.Shell != "":
		return p.packShell(cfg.Shell)
	case cfg.After == "shell":
		return p.packFirstShell(busyboxes)
	}
	return nil
}

func (p *packer) packShell(file string) error {
	data, err := p.readProgram(file)
	if err != nil {
		return err
	}
	if err := p.checkProgram(data); err != nil {
		return fmt.Errorf("%s %w", file, err)
	}
	p.file(rel(config.ShellPath), data, 0o755)
	return nil
}

// packFirstShell packs the first of the files that is there and is good.
func (p *packer) packFirstShell(files []string) error {
	e := &NoShellError{Tried: files}
	for _, file := range files {
		err := p.packShell(file)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			e.Errs = append(e.Errs, err)
		}
	}
	return e
}

// A NoShellError says that no shell was found.
type NoShellError struct {
	Tried []string
	// Errs says what is wrong with those that are there.
	Errs []error
}

// Error names the files that were tried.
func (e *NoShellError) Error() string {
	text := "no shell to pack: there is no static one of " + strings.Join(e.Tried, ", ")
	for _, err := range e.Errs {
		text += "; " + err.Error()
	}
	return text
}

// Hints says what to do.
func (e *NoShellError) Hints() []string {
	return []string{`install a busybox that is linked statically (Debian: busybox-static), or name a static shell with shell = "FILE"`}
}
