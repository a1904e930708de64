package debuginfo

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/corehaul/corehaul/debuginfo/symbolfile"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// The places of the system.
const (
	SystemDir     = "/usr/lib/debug" // what gdb, crash and drgn read too
	ModulesDir    = "/lib/modules"   // RELEASE/build is where a kernel was built on this machine
	ownBuildPlace = "build/vmlinux"
)

// Want names a file. What it has of a dump is hostile.
type Want struct {
	BuildID symbolfile.BuildID // nil if it is not known: then only local files count, by their names
	Release string             // of the kernel, as uname -r
	Module  string             // as /proc/modules has it; "" for the kernel image
}

// Name is what messages call the file.
func (w Want) Name() string {
	if w.Module == "" {
		return "vmlinux"
	}
	return w.Module + ".ko"
}

// plainName reports whether a text is the name of a file in a directory, and no path.
func plainName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) < 256 && !strings.ContainsAny(s, "/\x00")
}

// candidates lists where a file may be in a debug directory. The links of .build-id come first. The others are those of Debian
// (boot/vmlinux-RELEASE), Fedora and RHEL (lib/modules/RELEASE/vmlinux) and SUSE (usr/lib/modules/RELEASE/vmlinux.debug).
func (f *Finder) candidates(dir string, w Want) []string {
	var list []string
	if w.BuildID != nil {
		hex := w.BuildID.String()
		list = append(list, filepath.Join(dir, ".build-id", hex[:2], hex[2:]+".debug"))
	}
	if w.Module != "" {
		return append(list, f.modulesIn(dir, w)...)
	}
	if plainName(w.Release) {
		for _, place := range []string{"lib/modules/" + w.Release + "/vmlinux", "usr/lib/modules/" + w.Release + "/vmlinux", "boot/vmlinux-" + w.Release, "vmlinux-" + w.Release} {
			list = append(list, filepath.Join(dir, place), filepath.Join(dir, place+".debug"))
		}
	}
	return append(list, filepath.Join(dir, "vmlinux"))
}

// modulesIn lists the files of a module in a debug directory.
func (f *Finder) modulesIn(dir string, w Want) []string {
	list := f.moduleFiles(dir)[w.Module]
	if plainName(w.Release) {
		for _, place := range []string{"lib/modules", "usr/lib/modules"} {
			list = append(list, f.moduleFiles(filepath.Join(dir, place, w.Release, "..."))[w.Module]...)
		}
	}
	return list
}

// maxModuleFiles bounds the files of modules that are looked at in one directory. A kernel with all drivers has 8,000.
const maxModuleFiles = 1 << 17

// moduleFiles maps the names of modules to their files in a directory, and below it if the path ends with "/...".
func (f *Finder) moduleFiles(pattern string) map[string][]string {
	if known, ok := f.modules[pattern]; ok {
		return known
	}
	files, seen := map[string][]string{}, 0
	dir, below := strings.CutSuffix(pattern, "/...")
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if seen++; seen > maxModuleFiles {
			return fs.SkipAll
		}
		if err != nil || d.IsDir() {
			if d != nil && d.IsDir() && path != dir && !below {
				return fs.SkipDir
			}
			return nil // what cannot be read holds nothing
		}
		if name, ok := moduleName(d.Name()); ok {
			files[name] = append(files[name], path)
		}
		return nil
	})
	f.modules[pattern] = files
	return files
}

// moduleName returns the name of the module in a file. The kernel has "_" where names of files may have "-".
func moduleName(file string) (string, bool) {
	name, ok := strings.CutSuffix(strings.TrimSuffix(file, ".debug"), ".ko")
	return strings.ReplaceAll(name, "-", "_"), ok
}

// ModuleDir returns the directory with the modules' files of a release in the debug directories, "" if there is none. It is what crash
// takes with --mod.
func (f *Finder) ModuleDir(release string) string {
	if !plainName(release) {
		return ""
	}
	for _, dir := range f.Dirs {
		for _, place := range []string{"lib/modules", "usr/lib/modules"} {
			path := filepath.Join(dir, place, release)
			if len(f.moduleFiles(path+"/...")) > 0 {
				return path
			}
		}
	}
	return ""
}

// OtherCacheDir returns the cache of elfutils' client, "" if there is none: $DEBUGINFOD_CACHE_PATH, $XDG_CACHE_HOME/debuginfod_client or
// ~/.cache/debuginfod_client (debuginfod-find(1)).
func OtherCacheDir(getenv func(string) string) string {
	if dir := getenv("DEBUGINFOD_CACHE_PATH"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "debuginfod_client")
}

// local looks for a file on this machine. It returns nil if there is none, where it looked, and what is wrong with what is there.
func (f *Finder) local(w Want) (file *File, looked, failed []string) {
	var paths []string
	for _, dir := range f.Dirs {
		paths = append(paths, f.candidates(dir, w)...)
		looked = append(looked, dir)
	}
	if w.Module == "" && plainName(w.Release) {
		build := filepath.Join(ModulesDir, w.Release, ownBuildPlace)
		paths, looked = append(paths, build), append(looked, build)
	}
	if f.OtherCache != "" && w.BuildID != nil {
		paths, looked = append(paths, filepath.Join(f.OtherCache, w.BuildID.String(), "debuginfo")), append(looked, f.OtherCache)
	}
	for _, path := range paths {
		file, err := openChecked(path, w.BuildID)
		if err == nil {
			return file, looked, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			failed = append(failed, path+": "+err.Error())
		}
	}
	return nil, looked, failed
}

// openChecked opens a file that has the build id and debugging information.
func openChecked(path string, want symbolfile.BuildID) (*File, error) {
	file, err := plainfile.Open(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err // callers name the path
		}
		return nil, err
	}
	if err := checkFile(file, want); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &File{File: file}, nil
}

func checkFile(file *os.File, want symbolfile.BuildID) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return symbolfile.Check(file, info.Size(), want)
}
