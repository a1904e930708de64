package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/debuginfo"
	"github.com/corehaul/corehaul/debuginfo/symbolfile"
	"github.com/corehaul/corehaul/triage"
)

// symbolFlags say where the debugging information of kernels is.
type symbolFlags struct {
	symbols   string // auto, off, or the path of vmlinux
	dirs      []string
	cacheSize cli.BytesValue
}

const (
	symbolsAuto = "auto"
	symbolsOff  = "off"
	// defaultCacheSize holds the vmlinux of ten kernels: that of a distribution has 0.4 to 0.9 GB.
	defaultCacheSize = 8 << 30
)

// add adds the flags of commands that can do without debugging information. otherwise is the default of --symbols.
func (s *symbolFlags) add(cmd *cobra.Command, otherwise string) {
	cmd.Flags().StringVar(&s.symbols, "symbols", otherwise, "debugging information: auto (what is found), off, or the `PATH` of vmlinux")
	s.addPlaces(cmd)
}

// addPlaces adds the flags that say where to look.
func (s *symbolFlags) addPlaces(cmd *cobra.Command) {
	s.cacheSize = defaultCacheSize
	cmd.Flags().StringSliceVar(&s.dirs, "debug-dir", nil, "`DIR` with debugging information, searched before /usr/lib/debug; may be repeated")
	cmd.Flags().Var(&s.cacheSize, "debug-cache-size", "largest size of downloads from debuginfod servers that are kept")
}

// finder finds debugging information. It shows the progress of downloads.
type finder struct {
	*debuginfo.Finder

	endBar func()
}

// Find is that of debuginfo.Finder.
func (f *finder) Find(ctx context.Context, want debuginfo.Want) (*debuginfo.File, error) {
	defer f.endBar() // also of a download that broke off
	return f.Finder.Find(ctx, want)
}

// finder returns what finds the debugging information. It warns of variables that it does not obey.
func (s *symbolFlags) finder(a *app) (*finder, error) {
	tell, endBar := a.progress("download")
	f := &debuginfo.Finder{
		Dirs:       append(append([]string{}, s.dirs...), debuginfo.SystemDir),
		OtherCache: debuginfo.OtherCacheDir(os.Getenv),
		Tell:       func(line string) { a.note(line) },
	}
	servers, ignored, err := debuginfo.ServersFromEnvironment(os.Getenv)
	for _, line := range ignored {
		a.stdio.Warn("corehaul", "%s", line)
	}
	if err != nil {
		return nil, cli.Usage(err)
	}
	if servers != nil {
		servers.UserAgent = "corehaul/" + cli.Version()
		servers.Progress = tell
		f.Servers = servers
	}
	dir, err := debuginfo.CacheDir()
	if err != nil {
		f.NoCache = err
	} else {
		f.Cache = &debuginfo.Cache{Dir: dir, Limit: int64(min(s.cacheSize, 1<<62))}
	}
	return &finder{f, endBar}, nil
}

// note prints a line that is no warning to standard error.
func (a *app) note(line string) {
	_, _ = fmt.Fprintf(a.stdio.Err, "corehaul: %s\n", cli.Printable(line)) // nobody is told of what cannot be told
}

// withSymbols runs f on memory whose backtraces have lines of the source, as far as there is debugging information.
func (a *app) withSymbols(ctx context.Context, s *symbolFlags, m *triage.Memory, f func() error) (err error) {
	if s.symbols == symbolsOff {
		return f()
	}
	finder, err := s.finder(a)
	if err != nil {
		return err
	}
	o := opened{ctx: ctx, a: a, finder: finder}
	defer func() { err = errors.Join(err, o.close()) }()
	if s.symbols != symbolsAuto {
		if o.image, err = o.named(m, s.symbols); err != nil {
			return err
		}
		finder.Dirs = append([]string{filepath.Dir(s.symbols)}, finder.Dirs...)
	}
	m.UseDebugFiles(o.find)
	return f()
}

// opened has the files with debugging information that a command opened.
type opened struct {
	ctx    context.Context // of the one command that it serves
	a      *app
	finder *finder
	image  *symbolfile.File // that the user named
	files  []*symbolfile.File
	held   []*debuginfo.File // open, so that they stay in the cache
}

// named opens the vmlinux that the user names. It has to be of this kernel.
func (o *opened) named(m *triage.Memory, path string) (*symbolfile.File, error) {
	id, _ := symbolfile.ParseBuildID(m.ImageFile().BuildID) // without one, any file may be right
	file, err := debuginfo.Open(path, id)
	if err != nil {
		return nil, fmt.Errorf("--symbols: %w", err)
	}
	return o.open(file)
}

// find opens the debugging information of the kernel or a module. It returns nil if there is none.
func (o *opened) find(want triage.DebugFile) (*symbolfile.File, error) {
	if want.Module == "" && o.image != nil {
		return o.image, nil
	}
	w := wantOf(want)
	if w.BuildID == nil && want.Module == "" {
		return nil, nil // what lies at its path may be of another build
	}
	file, err := o.finder.Find(o.ctx, w)
	var missing *debuginfo.NotFoundError
	if errors.As(err, &missing) {
		for _, line := range missing.Failed {
			o.a.stdio.Warn("corehaul", "no lines of %s: %s", w.Name(), line)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return o.open(file)
}

// wantOf converts what a dump says of a file. A build id that is none is as good as none.
func wantOf(f triage.DebugFile) debuginfo.Want {
	id, _ := symbolfile.ParseBuildID(f.BuildID)
	return debuginfo.Want{BuildID: id, Release: f.Release, Module: f.Module}
}

func (o *opened) open(file *debuginfo.File) (*symbolfile.File, error) {
	o.held = append(o.held, file)
	f, err := symbolfile.Open(file.File)
	if err == nil {
		o.files = append(o.files, f)
	}
	return f, err
}

func (o *opened) close() (err error) {
	for _, f := range o.files {
		err = errors.Join(err, f.Close())
	}
	for _, f := range o.held {
		err = errors.Join(err, f.Close())
	}
	return err
}
