package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender"
	"github.com/corehaul/corehaul/sender/config"
)

// sendFlags are the flags of "send".
type sendFlags struct {
	to       []string
	keys     config.Keys
	level    uint8
	encoding string
	logOnly  bool
	deadline time.Duration
	patience time.Duration
	stall    time.Duration
	workers  int
	progress time.Duration
	json     bool
}

// sentDoc is what "send --json" prints. It may get new fields; no field changes or goes.
type sentDoc struct {
	protocol.Sealed // state, id, path, pages, missing, bytes, sha256

	Target      string   `json:"target"`
	Known       bool     `json:"known"` // it was stored before
	Declined    bool     `json:"declined"`
	DeclinedWhy string   `json:"declined_why,omitempty"`
	Lost        uint64   `json:"lost"` // pages that could not be read
	LostNotes   []string `json:"lost_notes,omitempty"`
	BytesSent   uint64   `json:"bytes_sent"`
	ElapsedMsec int64    `json:"elapsed_msec"`
}

func newSend(stdio cli.Stdio) *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use: "send --to TARGET [flags] [VMCORE]", Short: "Send a dump to a receiver",
		Long: `Sends VMCORE, by default /proc/vmcore, to a receiver: the kernel log first, then the
pages that the dump level keeps, the most useful ones first. When the connection breaks,
the program connects again and continues with what is missing.

A receiver is at tls://HOST:PORT and needs the --identity that it issued, or at
ssh://USER@HOST[:PORT][/PATH] and needs a private SSH key without a passphrase (--ssh-key) and
the server's key in a known_hosts file (--known-hosts). The program refuses a server whose key
is not in that file. If an SSH server has no receiver, the program writes the dump over SFTP
into PATH (corehaul in the login directory).

The target nfs://HOST[:PORT]/EXPORT/PATH is a directory on an NFS server (version 3). The program
writes the dump there itself and needs no NFS in the kernel and no key. :PORT (or ?port=PORT) and
?mountport=PORT are for servers without a portmapper, ?uid=N&gid=N names the user. NFS encrypts
nothing and proves no name.

The target file:///PATH is a directory of this system, which has to exist. The program writes the
dump there itself.

With several receivers, the first one that takes the dump gets it. The program skips a receiver
that fails or refuses, and tries it again later while the patience lasts. It returns to a
receiver that already has a part of the dump before it tries the others, which have nothing.

SIGUSR1 prints the progress, SIGHUP does nothing. SIGINT and SIGTERM end the program, which says
what is stored. The receiver keeps that, and the same command continues the dump. If a page cannot be read, the program
names it and leaves it out; the dump is then partial (exit code 3).`,
		Example: "  corehaul-send send --to tls://collector:7420 --identity web-17.pem\n" +
			"  corehaul-send send --to ssh://dumps@collector:7422 --ssh-key web-17.key --known-hosts known_hosts\n" +
			"  corehaul-send send --to nfs://filer/export/crash --to file:///var/crash\n" +
			"  corehaul-send send --to tls://collector:7420 --identity web-17.pem --level 1 --encoding zstd /var/crash/vmcore",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), stdio, vmcoreArg(args))
		},
	}
	f.add(cmd.Flags())
	cli.CompleteWords(cmd, "encoding", config.Encodings...)
	return cmd
}

func (f *sendFlags) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.to, "to", nil, "`TARGET` of the dump, tls://HOST:PORT, ssh://USER@HOST[:PORT][/PATH], nfs://HOST[:PORT]/EXPORT/PATH or file:///PATH; may be repeated, best first")
	flags.StringVar(&f.keys.Identity, "identity", "", "for tls://, identity `FILE` made by 'corehaul ca issue'")
	flags.StringVar(&f.keys.SSHKey, "ssh-key", "", "for ssh://, `FILE` with a private key, as ssh-keygen writes it")
	flags.StringVar(&f.keys.KnownHosts, "known-hosts", "", "for ssh://, `FILE` with the servers' keys, as ssh-keyscan writes it")
	addLevel(flags, &f.level)
	flags.StringVar(&f.encoding, "encoding", "auto", "auto, snappy, zstd, lz4 or none; auto adapts to the speed of network and CPUs")
	flags.BoolVar(&f.json, "json", false, "print the result as one JSON document")
	flags.BoolVar(&f.logOnly, "log-only", false, "send the kernel log and no pages")
	cli.DurationVar(flags, &f.deadline, "deadline", 0, "after this time, stop, and the receiver seals what it has; 0 means never")
	cli.DurationVar(flags, &f.patience, "patience", time.Minute, "stop after this time without progress")
	cli.DurationVar(flags, &f.stall, "stall", time.Duration(config.DefaultStall), "leave a receiver after this time without progress; 0 means never")
	flags.IntVar(&f.workers, "workers", defaultWorkers(), "number of workers that read and compress pages")
	cli.DurationVar(flags, &f.progress, "progress", 10*time.Second, "time between two lines of progress; 0 prints none; a terminal shows a live line")
}

func addLevel(flags *pflag.FlagSet, level *uint8) {
	flags.Uint8VarP(level, "level", "d", config.DefaultLevel,
		"dump level as in makedumpfile, the sum of the pages to exclude: 1 zero, 2 cache, 4 private cache, 8 user, 16 free")
}

func vmcoreArg(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return sender.VMCore
}

// check checks the flags before a dump is opened.
func (f *sendFlags) check() error {
	switch {
	case len(f.to) == 0:
		return cli.WithHint(cli.Usagef("no target: --to is missing"), "name it with --to tls://HOST:PORT, --to ssh://USER@HOST, --to nfs://HOST/EXPORT or --to file:///PATH")
	case !slices.Contains(sender.EncodingNames, f.encoding):
		return cli.Usagef("--encoding %q is none of %s", f.encoding, strings.Join(config.Encodings, ", "))
	case f.workers < 1 || f.workers > 256:
		return cli.Usagef("--workers %d is not between 1 and 256", f.workers)
	}
	for _, to := range f.to {
		if err := config.CheckTarget(to); err != nil {
			return cli.Usage(err)
		}
		if t, err := config.LocalTarget(to); err == nil && !t.FS.IsZero() {
			return cli.WithHint(cli.Usagef("target %q: only a capture kernel mounts the file system that ?fs= names", to),
				"write file:///PATH, with the PATH where it is mounted now; 'findmnt "+t.FS.String()+"' shows that")
		}
	}
	if err := missingKey(f.keys, f.to); err != nil {
		return err
	}
	return checkLevel(f.level)
}

func checkLevel(level uint8) error {
	if level > uint8(pages.MaxLevel) {
		return cli.Usagef("--level %d is not between 0 and %d", level, pages.MaxLevel)
	}
	return nil
}

func (f *sendFlags) run(ctx context.Context, stdio cli.Stdio, path string) error {
	start := time.Now()
	signal.Ignore(syscall.SIGHUP) // the dump goes on when the terminal or serial line of its start is closed
	if err := f.check(); err != nil {
		return err
	}
	dial, _, wrong := dialer(f.keys, f.to, sender.OpenMounted, nil)
	if len(wrong) > 0 {
		return cli.Usage(errors.Join(wrong...))
	}
	tuneMemory(f.workers)
	src, err := openSource(stdio, path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	meter := new(sender.Meter)
	rep := newReporter(stdio, meter, f.progress)
	opts := sender.Options{
		To: f.to, Dial: dial, Level: pages.DumpLevel(f.level),
		Encoding: f.encoding, LogOnly: f.logOnly, Patience: f.patience, Stall: f.stall, Workers: f.workers,
		Tool: tool(), Meter: meter, Log: rep.Printf,
	}
	if f.deadline > 0 {
		opts.Deadline = start.Add(f.deadline)
	}
	if path == sender.VMCore {
		opts.MachineID = sender.MachineID()
	}
	rep.start()
	res, err := sender.Send(ctx, src, opts)
	rep.stop()
	rep.Printf("peak memory %s", bytesize.Format(peakRSS()))
	return f.conclude(stdio, res, err)
}

// openSource opens a dump and prints its warnings.
func openSource(stdio cli.Stdio, path string) (*sender.Source, error) {
	src, err := sender.Open(path)
	if err != nil {
		if path == sender.VMCore && errors.Is(err, fs.ErrNotExist) {
			return nil, cli.WithHint(err, "only a capture kernel has /proc/vmcore; elsewhere, name a vmcore file")
		}
		var pe *os.PathError
		if !errors.As(err, &pe) {
			err = fmt.Errorf("%s: %w", path, err)
		}
		return nil, err
	}
	for _, w := range src.Warnings() {
		stdio.Warn(name, "%s", w)
	}
	return src, nil
}

// conclude prints the result and returns the error for the exit code.
func (f *sendFlags) conclude(stdio cli.Stdio, res *sender.Result, err error) error {
	if err != nil {
		if in, ok := errors.AsType[*sender.InterruptedError](err); ok {
			return interrupted(in)
		}
		if se, ok := errors.AsType[*sender.SendError](err); ok && se.Declined() {
			return cli.Declined(err)
		}
		return err
	}
	for _, l := range res.LostNotes {
		stdio.Warn(name, "%s", l)
	}
	if err := f.printResult(stdio, res); err != nil {
		return err
	}
	switch {
	case res.State == protocol.StateComplete:
		return nil
	case res.State == protocol.StateLogOnly && f.logOnly:
		return nil
	case res.State == protocol.StateLogOnly && res.Declined:
		return cli.Declined(nil)
	}
	return cli.Partial(nil)
}

// interrupted says what is stored, and how the dump goes on.
func interrupted(in *sender.InterruptedError) error {
	err := &cli.ExitError{Code: cli.ExitInterrupted, Err: errors.New(in.Error())}
	if len(in.Stored) == 0 {
		return cli.WithHint(err, "the same command begins again")
	}
	return cli.WithHint(err, "the same command continues the dump, and sends only what is missing; a receiver waits for it as long as its resume_grace says, then it seals what it has")
}

func (f *sendFlags) printResult(stdio cli.Stdio, res *sender.Result) error {
	if f.json {
		return cli.JSON(stdio.Out, sentDoc{
			Sealed: res.Sealed, Target: res.Target, Known: res.Known, Declined: res.Declined, DeclinedWhy: res.DeclinedWhy,
			Lost: res.Lost, LostNotes: res.LostNotes, BytesSent: res.BytesSent, ElapsedMsec: res.Elapsed.Milliseconds(),
		})
	}
	_, err := fmt.Fprintln(stdio.Out, cli.Printable(res.String()))
	return err
}
