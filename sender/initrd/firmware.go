package initrd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/corehaul/corehaul/internal/elf64"
)

// maxFirmware bounds the firmware of one archive, because it takes memory of the capture kernel. The firmware of a network
// card has up to 3 MiB.
const maxFirmware = 64 << 20

// firmwareOf lists the files below /lib/firmware that a module may ask the kernel to load. MODULE_FIRMWARE puts them into
// the section .modinfo, as firmware=PATH and a zero byte.
func firmwareOf(f *elf64.File) []string {
	section := f.Section(".modinfo")
	if section == nil {
		return nil
	}
	info, err := f.Data(section)
	if err != nil {
		return nil // the kernel refuses such a module with its own error
	}
	var files []string
	for line := range bytes.SplitSeq(info, []byte{0}) {
		if file, ok := strings.CutPrefix(string(line), "firmware="); ok && filepath.IsLocal(file) {
			files = append(files, file)
		}
	}
	return files
}

// firmwareDirs lists where the tree's kernel looks for firmware, best first (drivers/base/firmware_loader/main.c). The
// paths are relative to the root of the system that has the tree.
func (t *Tree) firmwareDirs() []string {
	var dirs []string
	root := filepath.Dir(filepath.Dir(filepath.Dir(t.dir))) // .../lib/modules/VERSION
	for _, lib := range []string{"lib", "usr/lib"} {
		at := filepath.Join(root, lib, "firmware")
		dirs = append(dirs, filepath.Join(at, "updates", t.release), filepath.Join(at, "updates"), filepath.Join(at, t.release), at)
	}
	return dirs
}

// addFirmware packs the unpacked firmware that a module may ask for. It ignores missing files, because a module names
// those of all cards that it drives. If all are missing, it adds the module to NoFirmware.
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

// findFirmware reads a file from the first directory that has it, plain or compressed.
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
