package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/debuginfo"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/lazyregexp"
	"github.com/corehaul/corehaul/triage"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// debugger is a program that reads dumps with the debugging information of their kernels.
type debugger struct {
	name     string
	packages string // that have it
	// argv returns the arguments without the name of the program.
	argv func(files debuggerFiles, args []string) []string
	// modules says that the program wants the files of modules by name.
	modules bool
}

// debuggerFiles are the files that a debugger needs. All paths are absolute.
type debuggerFiles struct {
	vmcore, vmlinux string
	modules         []string // files of modules that are on this machine
	moduleDir       string   // where those of this release lie, "" if nowhere
}

var crashDebugger = debugger{
	name: "crash", packages: "the package is crash in Debian, Ubuntu, Fedora and RHEL",
	argv: func(f debuggerFiles, args []string) []string {
		var argv []string
		if f.moduleDir != "" {
			argv = append(argv, "--mod", f.moduleDir)
		}
		return append(append(argv, args...), f.vmlinux, f.vmcore)
	},
}

func newCrash(a *app) *cobra.Command { return a.debuggerCommand(crashDebugger) }

// debuggerFlags are the flags of commands that start a debugger.
type debuggerFlags struct {
	symbolFlags
	print bool
}

// debuggerCommand makes the command that starts a debugger on a dump.
func (a *app) debuggerCommand(g debugger) *cobra.Command {
	var f debuggerFlags
	cmd := &cobra.Command{
		Use: g.name + " ID|VMCORE [-- ARG...]", GroupID: groupTriage, ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Open a dump in " + g.name,
		Long: fmt.Sprintf(`Start %[1]s with a dump and the vmlinux of its kernel. That is found by its build id, below
/usr/lib/debug and on the debuginfod servers of $DEBUGINFOD_URLS. What follows "--" goes to %[1]s.`, g.name),
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); len(args) == 0 || dash == 0 || dash < 0 && len(args) > 1 || dash > 1 {
				return cli.Usagef("want one dump, and the arguments of %s behind \"--\"", g.name)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), args[0], func(t *target) error { return a.startDebugger(cmd.Context(), t, g, &f, args[1:]) })
		},
	}
	a.dataFlag(cmd)
	cmd.Flags().StringVar(&f.symbols, "symbols", symbolsAuto, "`PATH` of vmlinux, or auto: what is found")
	f.addPlaces(cmd)
	cmd.Flags().BoolVar(&f.print, "print", false, "print the command line, and start nothing")
	return cmd
}

// startDebugger makes this process the debugger.
func (a *app) startDebugger(ctx context.Context, t *target, g debugger, f *debuggerFlags, args []string) error {
	if f.symbols == symbolsOff {
		return cli.Usagef("--symbols off: %s needs a vmlinux", g.name)
	}
	program, err := exec.LookPath(g.name)
	if err != nil && !f.print {
		return cli.WithHint(fmt.Errorf("there is no %s in $PATH", g.name), g.packages)
	}
	vmcore, err := a.localVMCore(ctx, t)
	if err != nil {
		return err
	}
	files, held, err := a.debuggerFiles(ctx, vmcore, g, f)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }() // only read
	argv := append([]string{g.name}, g.argv(files, args)...)
	if f.print {
		_, err := fmt.Fprintln(a.stdio.Out, shellLine(argv))
		return err
	}
	// The lock that keeps a downloaded file in the cache goes on to the debugger.
	if _, err := unix.FcntlInt(held.Fd(), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("%s: %w", held.Name(), err)
	}
	return fmt.Errorf("start %s: %w", program, syscall.Exec(program, argv, os.Environ()))
}

// localVMCore returns the absolute path of a target's vmcore. It warns of what it lacks.
func (a *app) localVMCore(ctx context.Context, t *target) (string, error) {
	if !t.isDump() {
		return filepath.Abs(t.path)
	}
	d, err := t.dump(ctx)
	if err != nil {
		return "", damaged(fmt.Errorf("%s: %w", t.name(), err))
	}
	defer func() { _ = d.Close() }() // only read
	path, ok := d.VMCorePath()
	state := d.State()
	if t.store != nil {
		state = t.entry.State() // it knows what verifications found
	}
	switch {
	case !ok:
		return "", noPages(t.name(), d.Manifest())
	case state == dumpdir.StateArriving:
		return "", cli.WithHint(fmt.Errorf("dump %s is still arriving: its vmcore cannot be opened yet", t.name()), "'corehaul ls' shows when it is complete")
	case state == dumpdir.StatePartial:
		a.stdio.Warn("corehaul", "dump %s is partial: pages are missing, and what needs them fails", t.name())
	case state == dumpdir.StateDamaged || d.Damage() != nil:
		a.stdio.Warn("corehaul", "dump %s is damaged: what is shown may be wrong ('corehaul verify' says what is damaged)", t.name())
	}
	if _, err := os.Stat(path); err != nil {
		return "", cli.WithHint(fmt.Errorf("dump %s is not on a disk of this machine: %w", t.name(), err), "'corehaul export -o FILE' writes a copy")
	}
	return filepath.Abs(path)
}

// debuggerFiles finds the files for a vmcore. held is the open vmlinux.
func (a *app) debuggerFiles(ctx context.Context, vmcore string, g debugger, f *debuggerFlags) (files debuggerFiles, held *debuginfo.File, err error) {
	img, err := dumpfile.Open(vmcore)
	if err != nil {
		return files, nil, damaged(fmt.Errorf("%s: %w", vmcore, err))
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	finder, err := f.finder(a)
	if err != nil {
		return files, nil, err
	}
	release, _ := img.Info().VMCOREINFO.String("OSRELEASE")
	buildID, _ := img.Info().VMCOREINFO.String("BUILD-ID")
	want := wantOf(triage.DebugFile{BuildID: buildID, Release: release})
	if held, err = f.findVMLinux(ctx, finder, want); err != nil {
		return files, nil, err
	}
	files = debuggerFiles{vmcore: vmcore, moduleDir: finder.ModuleDir(release)}
	if files.vmlinux, err = filepath.Abs(held.Name()); err != nil {
		return files, nil, errors.Join(err, held.Close())
	}
	if g.modules {
		for _, m := range triage.Open(img).ModuleFiles() {
			file, err := finder.FindHere(wantOf(m))
			if err != nil {
				continue // the debugger does without
			}
			files.modules = append(files.modules, file.Name())
			_ = file.Close() // only read
		}
	}
	return files, held, nil
}

// findVMLinux finds the vmlinux of a dump, or opens the one that the user names.
func (s *symbolFlags) findVMLinux(ctx context.Context, finder *finder, want debuginfo.Want) (*debuginfo.File, error) {
	if s.symbols != symbolsAuto {
		file, err := debuginfo.Open(s.symbols, want.BuildID)
		if err != nil {
			err = fmt.Errorf("--symbols: %w", err)
		}
		return file, err
	}
	if want.BuildID == nil {
		return nil, cli.WithHint(errors.New("the dump does not say the build id of its kernel"), "--symbols PATH names the vmlinux")
	}
	file, err := finder.Find(ctx, want)
	var missing *debuginfo.NotFoundError
	if !errors.As(err, &missing) {
		return file, err
	}
	hints := []string{"looked in " + strings.Join(missing.Looked, ", ")}
	hints = append(hints, missing.Failed...)
	hints = append(hints, packagesOf(want.Release))
	if finder.Servers == nil {
		hints = append(hints, "or set DEBUGINFOD_URLS, such as https://debuginfod.elfutils.org, which knows most distributions")
	}
	return nil, cli.WithHint(err, append(hints, "or name the file: --symbols PATH, --debug-dir DIR")...)
}

// plainRelease is what a release looks like that can be part of a command line.
var plainRelease = lazyregexp.New(`^[0-9][0-9A-Za-z.+~_-]{0,80}$`)

// packagesOf says which packages have the vmlinux of a kernel.
func packagesOf(release string) string {
	if !plainRelease.MatchString(release) {
		return "install the package with the debugging information of that kernel"
	}
	return fmt.Sprintf("Debian: apt install linux-image-%[1]s-dbg; Ubuntu: linux-image-%[1]s-dbgsym; Fedora, RHEL: dnf debuginfo-install kernel-%[1]s", release)
}

// plainWord is a word that a shell takes as it is.
var plainWord = lazyregexp.New(`^[0-9A-Za-z_@%+=:,./-]+$`)

// shellLine writes a command line that a shell reads as argv.
func shellLine(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		if words[i] = word; !plainWord.MatchString(word) {
			words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
