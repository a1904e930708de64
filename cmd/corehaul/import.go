package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/crashtree"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/hostname"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/stores"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// importFlags are the flags of "import".
type importFlags struct {
	host, config, compressor string
	dry                      bool
	reserve, hostBytes       cli.BytesValue
	hostDumps                int
}

func newImport(a *app) *cobra.Command {
	f := importFlags{reserve: defaultReserve, hostDumps: defaultHostDumps}
	cmd := &cobra.Command{
		Use: "import PATH...", GroupID: groupDumps, Args: cobra.MinimumNArgs(1),
		Short: "Take in the dumps that kdump or a sender left on a disk",
		Long: `Find dumps at each PATH and copy them into the store: a directory with all that is below
it on the same file system, such as /var/crash of Red Hat, Debian, Ubuntu or SUSE, or a
single vmcore (ELF, kdump-compressed or flattened, also inside gzip, bzip2, lz4, xz or
zstd; name one piece of a --split set to import them all). The files at PATH stay as
they are. Every page is decoded before it is stored. A dump is filed under the name of
the host that crashed: --host, or the nodename in its memory, or the name or address in
the name of its directory. Its id depends on what it holds, so a second import changes
nothing. A file that is still being written is left for later; so is a log without a
dump for five minutes. What crashed is found out at once, as 'serve' does it.

A dump directory that corehaul-send wrote (file://, nfs://, sftp://) is copied as it is,
with its journal, under its own host and id, and the copy is verified. One that its sender
did not finish is left for later until nothing has changed in it for five minutes. Then
what it has is imported, and replaced by an import of the finished one.

'serve' may run on the same data directory. --config FILE takes the data directory and the
limits of space from the configuration of 'serve'; flags override it.

Exit code 0: all dumps are stored and complete; 3: all are stored, but some lack pages; 5:
one is damaged; 1: something was not imported, or nothing was found.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.load(cmd); err != nil {
				return cli.Usage(err)
			}
			return a.importAll(cmd.Context(), args, &f)
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.host, "host", "", "host of all dumps of kdump at PATH (default: as each of them says)")
	flags.BoolVar(&f.dry, "dry-run", false, "only print what would be imported")
	flags.StringVar(&f.config, "config", "", "take limits and data directory from this configuration of 'serve'")
	flags.Var(&f.reserve, "reserve", "free disk space that dumps must leave")
	flags.Var(&f.hostBytes, "max-host-bytes", "most bytes that may be stored for one host; 0 means no limit")
	flags.IntVar(&f.hostDumps, "max-host-dumps", defaultHostDumps, "most dumps that may be stored for one host; 0 means no limit")
	flags.StringVar(&f.compressor, "compressor", receiver.DefaultCodec.String(), "compressor of pages that are not compressed yet: snappy, zstd")
	return cmd
}

// load adds the configuration file. Dumps must not take the space that retention would free again by removing others.
func (f *importFlags) load(cmd *cobra.Command) error {
	if f.host != "" {
		if err := hostname.Check(f.host); err != nil {
			return err
		}
	}
	if f.config == "" {
		return nil
	}
	file, err := loadServeFile(f.config)
	if err != nil {
		return err
	}
	given := cmd.Flags().Changed("reserve")
	if _, found := file.apply(cmd.Flags()); len(found) > 0 {
		return found
	}
	if !given {
		f.reserve = max(f.reserve, file.Retention.KeepFree)
	}
	return nil
}

// importAll imports all dumps at paths.
func (a *app) importAll(ctx context.Context, paths []string, f *importFlags) error {
	codec, err := kdumpfile.ParseCodec(f.compressor)
	if err != nil || codec == kdumpfile.Raw || codec == kdumpfile.LZO {
		return cli.Usagef("pages cannot be compressed with %q", f.compressor)
	}
	if err := a.checkOwner(paths[0]); err != nil && !f.dry {
		return err
	}
	store, err := stores.Open(ctx, a.data, storage.OpenOptions{ReadOnly: f.dry})
	if f.dry && errors.Is(err, fs.ErrNotExist) {
		store, err = nil, nil
	}
	if err != nil {
		return err
	}
	dir, err := stores.Dir(a.data)
	if err != nil {
		return err
	}
	run := importRun{app: a, hinted: map[string]bool{}, im: crashtree.Importer{
		Store: store, Host: f.host, Tool: "corehaul " + cli.Version(), Codec: codec, Dry: f.dry,
	}}
	if store != nil {
		limits := admission.Limits{Reserve: uint64(f.reserve), HostBytes: uint64(f.hostBytes), HostDumps: f.hostDumps}
		run.im.Scratch = dir
		run.im.Room = admission.NewRoom(store, limits, slog.Default())
		run.reporter = (&keepFlags{reportJobs: 1}).reporter(store, run.im.Room, slog.Default())
		run.reporter.Log = slog.New(slog.DiscardHandler) // the line of a dump has its title
		defer func() { _ = store.Close() }()             // each dump is durable
	}
	err = crashtree.Walk(ctx, paths, crashtree.Visitor{
		Dump: func(found crashtree.Found) error {
			return run.dump(ctx, found.Path(), func() (crashtree.Outcome, error) { return run.im.Import(ctx, found) })
		},
		Own: func(from *os.Root, dir string) error {
			return run.dump(ctx, dir, func() (crashtree.Outcome, error) { return run.im.ImportOwn(ctx, from, dir) })
		},
		Skip: run.skip,
		Data: dir,
	})
	if err != nil {
		return err
	}
	return run.end()
}

// checkOwner returns an error if root would make files in a data directory of another user: 'serve' could neither read nor remove them. Only root
// can read what kdump wrote, so root is who tries.
func (a *app) checkOwner(path string) error {
	dir, err := stores.Dir(a.data)
	if err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil // it will be made, or whoever opens it says why not
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if os.Geteuid() != 0 || !ok || st.Uid == 0 {
		return nil
	}
	return cli.WithHint(fmt.Errorf("%s belongs to the user with uid %d, who may not be able to read what root makes there", dir, st.Uid),
		fmt.Sprintf("run 'corehaul import' as that user: sudo -u '#%d' corehaul import ...", st.Uid),
		fmt.Sprintf("let that user read the files: setfacl -R -m u:%d:rX %s", st.Uid, cli.Printable(path)))
}

// importRun counts what an import does.
type importRun struct {
	*app
	im       crashtree.Importer
	reporter *reporter // nil in a dry run
	count    importCount
	hinted   map[string]bool // hints are printed once
}

// importCount is the summary of an import: numbers of dumps, and of paths that were left out.
type importCount struct {
	Type     string `json:"type"` // "summary"
	Imported int    `json:"imported"`
	Present  int    `json:"present"`
	Partial  int    `json:"partial"` // of those: without all pages
	Damaged  int    `json:"damaged"` // of those: damaged, since they were imported or before
	Later    int    `json:"later"`
	Failed   int    `json:"failed"`
	LeftOut  int    `json:"left_out"`
	DryRun   bool   `json:"dry_run,omitempty"`
}

// importLine is a line of --json for one dump or path.
type importLine struct {
	Type string `json:"type"` // "dump"
	*crashtree.Outcome
	Title string `json:"title,omitempty"` // what crashed, if it is known
}

// dump imports one dump at a path.
func (r *importRun) dump(ctx context.Context, path string, one func() (crashtree.Outcome, error)) error {
	tell, done := r.progress("import " + path)
	r.im.Progress = func(_ string, done, total uint64) { tell(int64(done), int64(total)) }
	out, err := one()
	done()
	if err != nil {
		return err
	}
	return r.tell(&out, r.report(ctx, &out))
}

// report makes the report of a dump that was imported, and returns its title. Without a report the dump is in no group.
func (r *importRun) report(ctx context.Context, o *crashtree.Outcome) (title string) {
	if r.reporter == nil || o.Result != crashtree.Imported && o.Result != crashtree.Present {
		return ""
	}
	e, err := r.reporter.Make(ctx, o.Ref)
	if err != nil && ctx.Err() == nil {
		r.stdio.Warn("corehaul", "%s: what crashed was not found out; 'corehaul serve' tries again: %v", o.Ref, err)
	}
	return e.Headline()
}

// skip counts a path that is not imported.
func (r *importRun) skip(path string, why error) error {
	out := crashtree.Outcome{Path: path, Result: crashtree.Failed, Err: why, Error: why.Error()}
	if crashtree.IsLeftOut(why) {
		out.Result = leftOut
	}
	return r.tell(&out, "")
}

// leftOut is the result of a path that is no failure.
const leftOut = "left-out"

func (r *importRun) tell(o *crashtree.Outcome, title string) error {
	r.add(o)
	if errors.Is(o.Err, fs.ErrPermission) {
		o.Err = cli.WithHint(o.Err, fmt.Sprintf("let the user who imports read the files: setfacl -R -m u:%d:rX %s", os.Geteuid(), cli.Printable(filepath.Dir(o.Path))))
	}
	if r.json {
		return cli.JSONLine(r.stdio.Out, importLine{"dump", o, title})
	}
	if _, err := fmt.Fprintln(r.stdio.Out, importText(o, title)); err != nil {
		return err
	}
	for _, line := range o.Warnings {
		r.stdio.Warn("corehaul", "%s", line)
	}
	for _, line := range o.NotKept {
		r.stdio.Warn("corehaul", "%s: not kept beside it: %s", o.Path, line)
	}
	for _, hint := range cli.Hints(o.Err) {
		if !r.hinted[hint] {
			r.hinted[hint] = true
			_, _ = fmt.Fprintf(r.stdio.Err, "hint: %s\n", cli.Printable(hint))
		}
	}
	return nil
}

func (r *importRun) add(o *crashtree.Outcome) {
	switch o.Result {
	case crashtree.Imported, crashtree.Would:
		r.count.Imported++
	case crashtree.Present:
		r.count.Present++
	case crashtree.Later:
		r.count.Later++
	case crashtree.Failed:
		r.count.Failed++
	case leftOut:
		r.count.LeftOut++
	}
	switch o.State {
	case dumpdir.StatePartial, dumpdir.StateLogOnly:
		r.count.Partial++
	case dumpdir.StateDamaged:
		r.count.Damaged++
	}
}

// importText is the line for one dump or path.
func importText(o *crashtree.Outcome, title string) string {
	path := cli.Printable(o.Path)
	verb := map[string]string{crashtree.Imported: "imported", crashtree.Would: "would import", crashtree.Present: "imported before"}[o.Result]
	switch {
	case o.Result == crashtree.Failed:
		return "not imported: " + path + ": " + cli.Printable(o.Error)
	case o.Result == leftOut:
		return "left out: " + path + ": " + cli.Printable(o.Error)
	case verb == "":
		return path + ": " + cli.Printable(o.Error)
	}
	parts := []string{string(o.State), bytesize.Format(o.Bytes)}
	if !o.CrashTime.IsZero() {
		parts = append(parts, "crashed "+cli.Time(o.CrashTime))
	}
	text := fmt.Sprintf("%s %s: %s: %s", verb, o.Ref, path, strings.Join(parts, ", "))
	if o.Reason != "" {
		text += "; " + cli.Printable(o.Reason)
	}
	for _, sum := range o.Matched {
		text += "; " + cli.Printable(sum)
	}
	if title != "" {
		text += "; " + cli.Printable(title)
	}
	return text
}

// end prints the summary, and returns the error for the exit code.
func (r *importRun) end() error {
	c := &r.count
	c.Type, c.DryRun = "summary", r.im.Dry
	if r.json {
		if err := cli.JSONLine(r.stdio.Out, c); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintln(r.stdio.Out, c.text()); err != nil {
		return err
	}
	switch {
	case c.Failed+c.Later > 0:
		return fmt.Errorf("%d dumps or paths were not imported", c.Failed+c.Later)
	case c.Imported+c.Present == 0:
		return cli.WithHint(errors.New("no dumps were found"), "name the directory that kdump or corehaul-send writes to, for example /var/crash, or a vmcore file")
	case c.Damaged > 0:
		return cli.VerifyFailed(fmt.Errorf("%d dumps are damaged", c.Damaged))
	case c.Partial > 0:
		return cli.Partial(nil)
	}
	return nil
}

func (c *importCount) text() string {
	verb := "imported"
	if c.DryRun {
		verb = "would be imported"
	}
	parts := []string{fmt.Sprintf("%d dumps %s", c.Imported, verb)}
	for _, p := range []struct {
		n    int
		what string
	}{
		{c.Present, "imported before"},
		{c.Partial, "of these without all pages"},
		{c.Damaged, "of these damaged"},
		{c.Later, "left for later"},
		{c.Failed, "not imported"},
		{c.LeftOut, "left out"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}
