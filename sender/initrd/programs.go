package initrd

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/config"
)

// A Program is a file that was packed to be run.
type Program struct {
	Path   string // on the machine that packs
	SHA256 [sha256.Size]byte
}

// readProgram reads a file that is to be packed, and notes it in the report.
func (p *packer) readProgram(file string) ([]byte, error) {
	data, err := plainfile.Read(file, maxPacked)
	if err == nil {
		p.report.Programs = append(p.report.Programs, Program{file, sha256.Sum256(data)})
	}
	return data, err
}

// addPrograms packs programs of the site, and the interpreters of those that are scripts.
func (p *packer) addPrograms(files []string) error {
	packed := map[string]bool{}
	for _, file := range files {
		data, err := p.readProgram(file)
		if err != nil {
			return err
		}
		if line, ok := bytes.CutPrefix(data, []byte("#!")); ok {
			err = p.addInterpreter(line, packed)
		} else {
			err = p.checkProgram(data)
		}
		if err != nil {
			return fmt.Errorf("%s %w", file, err)
		}
		p.fileOnce(config.ProgramPath(file), data, packed)
	}
	return nil
}

// addInterpreter packs the program that runs a script, at the path where the kernel looks for it. line begins behind "#!"
// (fs/binfmt_script.c).
func (p *packer) addInterpreter(line []byte, packed map[string]bool) error {
	line, _, _ = bytes.Cut(line, []byte("\n"))
	words := bytes.Fields(line)
	if len(words) == 0 || !path.IsAbs(string(words[0])) {
		return errors.New("is a script that names no interpreter: begin it with #!/bin/busybox sh")
	}
	name := path.Clean(string(words[0]))
	data, err := p.readProgram(name)
	if err != nil {
		return fmt.Errorf("is a script, and its interpreter cannot be read: %w", err)
	}
	if err := p.checkProgram(data); err != nil {
		return fmt.Errorf("is a script, and its interpreter %s %w; #!/bin/busybox sh works with busybox-static", name, err)
	}
	p.fileOnce(name, data, packed)
	return nil
}

// checkProgram says why a program cannot run in the image, which has no libraries.
func (p *packer) checkProgram(data []byte) error {
	m, dynamic, err := machineOf(data)
	switch {
	case err != nil:
		return fmt.Errorf("is neither a program nor a script: %w", err)
	case dynamic:
		return errors.New("is linked dynamically, and the image has no libraries: link it statically")
	case m != p.machine:
		return fmt.Errorf("is for %v, but init is for %v", m, p.machine)
	}
	return nil
}

func (p *packer) fileOnce(name string, data []byte, packed map[string]bool) {
	if !packed[name] {
		packed[name] = true
		p.file(rel(name), data, 0o755)
	}
}
