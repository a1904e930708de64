package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/export"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// exportFlags are the flags of "export".
type exportFlags struct {
	format   string
	compress string
	output   string
}

func newExport(a *app) *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use: "export ID|VMCORE", GroupID: groupDumps, Args: cobra.ExactArgs(1), ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Write a dump in another format or with another compressor",
		Long: `Write a dump as an ELF core, or as a kdump-compressed or flattened file. Without
--compress, the pages of a kdump-compressed dump keep their compressor. Every build of
crash can read zlib. The output has a temporary name until it is complete. Without -o it
goes to standard output, which may be a pipe or a file, as flattened; ELF can go there too. Exit code 3: the dump is partial, or some
pages could not be read; 5: some pages of a stored dump differ from what its sender
sent. The command names such pages. They are missing in the output.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(a.stdio.Out); err != nil {
				return err
			}
			return a.withTarget(cmd.Context(), args[0], func(t *target) error { return a.export(cmd.Context(), t, f) })
		},
	}
	a.dataFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "", "format of the output: elf, kdump, flattened (default: kdump; flattened on standard output)")
	flags.StringVar(&f.compress, "compress", "", "compressor of kdump and flattened: zlib, snappy, zstd, none (default: keep the dump's)")
	flags.StringVarP(&f.output, "output", "o", "-", "file to write; - for standard output")
	cli.CompleteWords(cmd, "format", export.FormatELF, export.FormatKdump, export.FormatFlattened)
	cli.CompleteWords(cmd, "compress", "zlib", "snappy", "zstd", "none")
	return cmd
}

func (f *exportFlags) check(stdout io.Writer) error {
	if f.format == "" {
		f.format = export.FormatKdump
		if f.output == "-" {
			f.format = export.FormatFlattened
		}
	}
	switch f.format {
	case export.FormatELF, export.FormatKdump, export.FormatFlattened:
	default:
		return cli.Usagef("--format %q is none of elf, kdump, flattened", f.format)
	}
	if f.compress != "" {
		if f.format == export.FormatELF {
			return cli.Usagef("an ELF core is not compressed")
		}
		if c, err := kdumpfile.ParseCodec(f.compress); err != nil || c == kdumpfile.LZO {
			return cli.Usagef("pages cannot be written with compressor %q, only with zlib, snappy, zstd or none", f.compress)
		}
	}
	if f.output != "-" {
		return nil
	}
	if f.format == export.FormatKdump {
		return cli.WithHint(cli.Usagef("a kdump-compressed file cannot be written to a pipe"), "name a file with -o FILE, or use --format flattened")
	}
	return cli.RefuseTerminal(stdout, "a dump")
}

func (a *app) export(ctx context.Context, t *target, f exportFlags) (err error) {
	m, err := t.memory(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }() // only read
	tell, done := a.steps()
	lost, src, err := a.exportMemory(ctx, m, f, tell)
	done()
	places := a.tellDamage(m)
	if err != nil {
		return damaged(err)
	}
	if places > 0 {
		return cli.VerifyFailed(fmt.Errorf("%s: damaged in %d place(s), named above; %d pages are left out", t.name(), places, lost+src.Left))
	}
	return exportState(t.name(), src, lost)
}

// stepFunc is told how many bytes of a step of some work are done.
type stepFunc func(step string, done, total int64)

// exportMemory exports the memory of a dump, and returns how many of its pages could not be read.
func (a *app) exportMemory(ctx context.Context, m *memory, f exportFlags, tell stepFunc) (lost uint64, src export.Source, err error) {
	if src, err = m.forExport(ctx, f, tell); err != nil {
		return 0, src, err
	}
	lost, err = a.writeExport(ctx, src, f)
	return lost, src, err
}

// forExport prepares the memory for an export.
func (m *memory) forExport(ctx context.Context, f exportFlags, tell stepFunc) (export.Source, error) {
	path, err := m.path, error(nil)
	if m.stored != nil {
		if path, err = m.pathToCopy(ctx, f, tell); err != nil {
			return export.Source{}, err
		}
	}
	src, err := export.NewSource(ctx, m.Image, path, export.Options{
		Format: f.format, Compress: f.compress, Intact: m.stored != nil && path != "", Progress: tell,
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", m.path, err)
	}
	return src, err
}

// pathToCopy returns the file of a stored dump if the file has the SHA-256 of its seal, so that it may be copied.
func (m *memory) pathToCopy(ctx context.Context, f exportFlags, tell stepFunc) (string, error) {
	if f.compress != "" || m.Info().Incomplete {
		return "", nil
	}
	whole, err := m.dump.Intact(ctx, func(done, total int64) { tell(export.StepCheck, done, total) })
	if err != nil || !whole {
		return "", err
	}
	return m.path, nil
}

// exportState returns the error for the exit code: partial if pages are missing. lost pages could not be read.
func exportState(name string, src export.Source, lost uint64) error {
	var why []string
	if !src.Has.Complete() {
		why = append(why, src.Has.Reason())
	}
	if lost += src.Left; lost > 0 {
		why = append(why, fmt.Sprintf("%d pages could not be read and are missing", lost))
	}
	if len(why) == 0 {
		return nil
	}
	return cli.Partial(fmt.Errorf("%s: partial: %s", name, strings.Join(why, "; ")))
}

func (a *app) writeExport(ctx context.Context, src export.Source, f exportFlags) (lost uint64, err error) {
	switch f.format {
	case export.FormatELF:
		err = a.stream(f.output, func(w io.Writer) error {
			lost, err = export.ELF(ctx, w, src)
			return err
		})
		return lost, err
	case export.FormatFlattened:
		return a.exportFlattened(ctx, src, f)
	}
	return lost, toFile(f.output, func(out *os.File) error {
		lost, err = export.Kdump(ctx, out, src, f.compress)
		return err
	})
}

// exportFlattened writes the flattened form of a kdump-compressed file. If the dump's own file cannot be used, it
// makes a temporary one.
func (a *app) exportFlattened(ctx context.Context, src export.Source, f exportFlags) (lost uint64, err error) {
	path := src.Path
	if !src.AsItIs(f.compress) {
		tmp, err := plainfile.CreatePending(tempName(f.output))
		if err != nil {
			return 0, err
		}
		defer tmp.Abort() // only read by flatten
		if lost, err = export.Kdump(ctx, tmp.File, src, f.compress); err != nil {
			return lost, err
		}
		path = tmp.Path()
	}
	return lost, a.stream(f.output, func(w io.Writer) error { return export.Flatten(ctx, w, src, path) })
}

// tempName returns the path for a temporary file of the output's size: beside the output, if that is a file.
func tempName(output string) string {
	info, err := os.Stat(output)
	if output == "-" || err == nil && !info.Mode().IsRegular() {
		return filepath.Join(os.TempDir(), "corehaul-export")
	}
	return output
}

// stream calls write with standard output, with a file that is not regular, or with a new file.
func (a *app) stream(output string, write func(io.Writer) error) error {
	if output == "-" {
		return write(a.stdio.Out)
	}
	if info, err := os.Stat(output); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(output, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	return toFile(output, func(f *os.File) error { return write(f) })
}

// toFile calls write with a file that gets its name when it is complete and durable. A dump contains secrets: only
// the owner may read it.
func toFile(path string, write func(*os.File) error) error {
	p, err := plainfile.CreatePending(path)
	if err != nil {
		return err
	}
	defer p.Abort()
	if err := write(p.File); err != nil {
		return err
	}
	return p.Commit()
}
