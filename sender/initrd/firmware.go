package initrd

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
)

// maxFirmware bounds the firmware of one archive, which lies in the capture kernel's memory. That of a
// network card has up to 3 MiB.
const maxFirmware = 64 << 20

// firmwareOf lists the files that a module may ask the kernel to load, below /lib/firmware: MODULE_FIRMWARE
// leaves them in its section .modinfo, as firmware=PATH with a zero byte behind it.
func firmwareOf(f *elf.File) []string {
	section := f.Section(".modinfo")
	if section == nil {
		return nil
	}
	info, err := section.Data()
	if err != nil {
		return nil // it is no module that the kernel takes; that says so by itself
	}
	var files []string
	for line := range bytes.SplitSeq(info, []byte{0}) {
		if file, ok := strings.CutPrefix(string(line), "firmware="); ok && filepath.IsLocal(file) {
			files = append(files, file)
		}
	}
	return files
}

// firmwareDirs are where the kernel of the tree looks for firmware, best first (drivers/base/firmware_loader/main.c):
// below the root of the system that the tree lies in.
func (t *Tree) firmwareDirs() []string {
	var dirs []string
	root := filepath.Dir(filepath.Dir(filepath.Dir(t.dir))) // .../lib/modules/VERSION
	for _, lib := range []string{"lib", "usr/lib"} {
		at := filepath.Join(root, lib, "firmware")
		dirs = append(dirs, filepath.Join(at, "updates", t.release), filepath.Join(at, "updates"), filepath.Join(at, t.release), at)
	}
	return dirs
}

// addFirmware packs the firmware that a module may ask for, unpacked, as far as it is there, and notes the module
// when nothing is: a module names the files of all cards that it drives, so that some are missing means nothing.
func (p *packer) addFirmware(t *Tree, module string, files []string) error {
	found := 0
	for _, file := range files {
		data, err := findFirmware(t.firmwareDirs(), file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return &ModuleError{Module: module, Err: err}
		}
		found++
		if p.firmware[file] {
			continue
		}
		if p.report.Firmware += int64(len(data)); p.report.Firmware > maxFirmware {
			return &ModuleError{Module: module, Err: fmt.Errorf("its firmware makes more than %d MiB", maxFirmware>>20)}
		}
		p.firmware[file] = true
		p.file(path.Join("lib/firmware", file), data, 0o644)
	}
	if found == 0 && len(files) > 0 {
		p.report.NoFirmware = append(p.report.NoFirmware, module)
	}
	return nil
}

// findFirmware reads a file in the first directory that has it, or has it compressed.
func findFirmware(dirs []string, file string) ([]byte, error) {
	for _, dir := range dirs {
		for _, suffix := range []string{"", ".zst", ".xz"} {
			data, err := readPacked(filepath.Join(dir, file+suffix), suffix)
			if !errors.Is(err, fs.ErrNotExist) {
				return data, err
			}
		}
	}
	return nil, fs.ErrNotExist
}
