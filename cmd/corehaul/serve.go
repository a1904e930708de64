package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/printable"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/receiver/kdumpclients"
	"github.com/corehaul/corehaul/receiver/sshd"
	"github.com/corehaul/corehaul/receiver/watch"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/stores"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// serveFlags are the flags of "serve".
type serveFlags struct {
	config         string
	socket         string
	tls            []string
	ca             string
	ssh            []string
	authorizedKeys string
	localOnly      bool
	watch          []string
	memory         cli.BytesValue
	maxActive      int
	maxHost        int
	maxHostBytes   cli.BytesValue
	maxHostDumps   int
	maxConnections int
	reserve        cli.BytesValue
	resumeGrace    time.Duration
	idleTimeout    time.Duration
	stallTimeout   time.Duration
	stockIdle      time.Duration
	commitInterval time.Duration
	commitBytes    cli.BytesValue
	compressor     string
	keep           keepFlags
	logFormat      string
	logLevel       slog.Level
	rules          []admission.Rule // from the configuration file
	old            oldKeys          // that the configuration file has
	dir            string           // directory of the store, where the server keeps its own files
}

func newServe(a *app) *cobra.Command {
	f := serveFlags{
		memory: receiver.DefaultMemory, reserve: defaultReserve, maxHostDumps: defaultHostDumps, commitBytes: receiver.DefaultCommitBytes,
	}
	cmd := &cobra.Command{
		Use: "serve", GroupID: groupServer, Args: cobra.NoArgs,
		Short: "Receive dumps",
		Long: `Receive dumps until SIGTERM or SIGINT. SIGHUP changes nothing. When the server listens,
it prints one line "ready" with its addresses to standard output. It logs to standard
error. --config names a TOML file; its keys are the names of the flags with
underscores. Flags and environment variables override it. Only that file can have
rules on which dumps to take, and how much of them. --ssh accepts dumps over SSH from
corehaul-send and from stock kdump clients with ssh, scp and sftp. --watch takes in the
dumps that others write into a directory of this machine. "corehaul status" shows what the
server does.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.load(cmd); err != nil {
				return cli.Usage(err)
			}
			return a.serve(cmd.Context(), &f)
		},
	}
	a.dataFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "configuration file (TOML); without it and without an address to listen on: "+defaultServeFile+", if that exists")
	flags.StringVar(&f.socket, "socket", "", "socket for \"corehaul status\" (default "+socketName+" in the data directory)")
	flags.StringSliceVar(&f.tls, "tls", nil, "address to listen on, HOST:PORT; may be repeated; port 0 means any free port")
	flags.StringVar(&f.ca, "ca", defaultCA, "directory of the CA and the receiver's key, see 'ca init'")
	flags.StringSliceVar(&f.ssh, "ssh", nil, "address to listen on for SSH, as for --tls")
	flags.StringVar(&f.authorizedKeys, "authorized-keys", "", "file of the accepted SSH keys, each with the name of its host")
	flags.BoolVar(&f.localOnly, "local-only", false, "listen only on the local socket; OpenSSH's server hands over connections (see 'receive')")
	flags.StringSliceVar(&f.watch, "watch", nil, "directory in which others write dumps, such as an NFS export; may be repeated")
	flags.Var(&f.memory, "memory", "memory for all sessions together")
	flags.IntVar(&f.maxActive, "max-active", receiver.DefaultMaxActive, "how many senders may send pages at the same time; others wait in the queue")
	flags.IntVar(&f.maxHost, "max-host-sessions", 0, "how many senders of one host may send pages at the same time; 0 means no limit")
	flags.Var(&f.maxHostBytes, "max-host-bytes", "most bytes that may be stored for one host; 0 means no limit")
	flags.IntVar(&f.maxHostDumps, "max-host-dumps", defaultHostDumps, "most dumps that may be stored for one host; 0 means no limit")
	flags.IntVar(&f.maxConnections, "max-connections", receiver.DefaultMaxConnections, "most connections that may be open")
	flags.Var(&f.reserve, "reserve", "free disk space that dumps must leave")
	cli.DurationVar(flags, &f.resumeGrace, "resume-grace", receiver.DefaultResumeGrace, "how long an unfinished dump waits for its sender to come back")
	cli.DurationVar(flags, &f.idleTimeout, "idle-timeout", receiver.DefaultIdleTimeout, "silence after which a sender counts as gone")
	cli.DurationVar(flags, &f.stallTimeout, "stall-timeout", receiver.DefaultStallTimeout, "how long an accepted sender may send nothing before it loses its place")
	cli.DurationVar(flags, &f.stockIdle, "stock-idle-timeout", sshd.DefaultClientIdle, "silence after which a stock kdump client over SSH is disconnected")
	cli.DurationVar(flags, &f.commitInterval, "commit-interval", receiver.DefaultCommitInterval, "longest time between two fsyncs of a session")
	flags.Var(&f.commitBytes, "commit-bytes", "page data after which a session fsyncs")
	flags.StringVar(&f.compressor, "compressor", receiver.DefaultCodec.String(), "compressor of pages that arrive in blocks: snappy, zstd")
	f.keep.add(flags)
	flags.StringVar(&f.logFormat, "log-format", "text", "format of the log: text, json")
	flags.TextVar(&f.logLevel, "log-level", slog.LevelInfo, "lowest level to log: debug, info, warn, error")
	return cmd
}

// defaultServeFile is the configuration of a "serve" that is told nothing else. Tests have another one, because a machine that runs
// them may have this one.
var defaultServeFile = "/etc/corehaul/serve.toml"

// findConfig names the default configuration if nothing else says where to listen. A server that a person starts beside the
// service with addresses of its own takes nothing from the configuration of the service.
func (f *serveFlags) findConfig(path string) {
	if f.config != "" || len(f.tls)+len(f.ssh)+len(f.watch) > 0 || f.localOnly {
		return
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		f.config = path
	}
}

// load adds the configuration file and checks the result.
func (f *serveFlags) load(cmd *cobra.Command) error {
	f.findConfig(defaultServeFile)
	var file *serveFile
	if f.config != "" {
		var err error
		if file, err = loadServeFile(f.config); err != nil {
			return err
		}
		if err := file.apply(f.config, cmd.Flags()); err != nil {
			return err
		}
		f.rules, f.old = file.rules, file.old
	}
	if err := f.keep.load(file); err != nil {
		return err
	}
	return f.check()
}

// check returns an error if flags are missing or contradict each other.
func (f *serveFlags) check() error {
	switch {
	case len(f.tls)+len(f.ssh)+len(f.watch) == 0 && !f.localOnly:
		return cli.WithHint(errors.New("no address to listen on: --tls HOST:PORT, --ssh HOST:PORT"),
			"use --local-only if all connections come through OpenSSH's server ('corehaul receive')",
			"use --watch DIR if all dumps come through the file system")
	case len(f.tls)+len(f.ssh) > 0 && f.localOnly:
		return errors.New("--local-only cannot be used with an address to listen on (--tls, --ssh)")
	case (f.authorizedKeys == "") != (len(f.ssh) == 0):
		return errors.New("--ssh HOST:PORT and --authorized-keys FILE must be given together")
	case f.maxHostDumps < 0:
		return errors.New("--max-host-dumps must not be negative; 0 means no limit")
	case f.stockIdle <= 0:
		return errors.New("--stock-idle-timeout must be above zero, for example 1h")
	case f.logFormat != "text" && f.logFormat != "json":
		return fmt.Errorf("unknown log format %q", f.logFormat)
	}
	return errors.Join(checkAddresses("tls", f.tls), checkAddresses("ssh", f.ssh))
}

// checkAddresses returns an error for an address that is none.
func checkAddresses(flag string, addrs []string) error {
	for _, addr := range addrs {
		_, port, err := net.SplitHostPort(addr)
		if n, name := strconv.Atoi(port); err != nil || name == nil && n > math.MaxUint16 {
			return fmt.Errorf("--%s %q is not HOST:PORT, such as [::]:7420 for all addresses of this machine", flag, addr)
		}
	}
	return nil
}

func (f *serveFlags) logger(a *app) *slog.Logger {
	opts := &slog.HandlerOptions{Level: f.logLevel}
	if f.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(printable.NewJSON(a.stdio.Err), opts))
	}
	return slog.New(slog.NewTextHandler(a.stdio.Err, opts))
}

// Defaults of the limits of the disk.
const (
	defaultReserve   = 1 << 30
	defaultHostDumps = 10000
)

// limits returns how much dumps may take.
func (f *serveFlags) limits() admission.Limits {
	return admission.Limits{Reserve: uint64(f.reserve), HostBytes: uint64(f.maxHostBytes), HostDumps: f.maxHostDumps}
}

// receiver returns the configuration of the receiver.
func (f *serveFlags) receiver(log *slog.Logger) (receiver.Config, error) {
	codec, err := kdumpfile.ParseCodec(f.compressor)
	if err != nil || codec == kdumpfile.Raw {
		return receiver.Config{}, cli.Usagef("the receiver cannot compress pages with %q", f.compressor)
	}
	return receiver.Config{
		Log: log, Tool: "corehaul " + cli.Version(), Memory: uint64(f.memory), MaxActive: f.maxActive, MaxConnections: f.maxConnections,
		MaxHostSessions: f.maxHost, Rules: f.rules, StallTimeout: f.stallTimeout,
		ResumeGrace: f.resumeGrace, IdleTimeout: f.idleTimeout,
		CommitInterval: f.commitInterval, CommitBytes: uint64(f.commitBytes), Codec: codec,
	}, nil
}

func (a *app) serve(ctx context.Context, f *serveFlags) (err error) {
	log := f.logger(a)
	slog.SetDefault(log) // the store's own lines, in the same form
	defer hangups(log)()
	for _, k := range f.old {
		log.Warn("configuration: "+k.String(), "path", f.config)
	}
	cfg, err := f.receiver(log)
	if err != nil {
		return err
	}
	trusted, err := f.trusted(log)
	if err != nil {
		return cli.Usage(err)
	}
	store, err := stores.Open(ctx, a.data, storage.OpenOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := writable(ctx, store); err != nil {
		return err
	}
	if f.dir, err = stores.Dir(a.data); err != nil {
		return err
	}
	if f.socket, err = a.socketPath(f.socket); err != nil {
		return err
	}
	warnOpen(f.dir, log)
	cfg.Store, cfg.Room = store, admission.NewRoom(store, f.limits(), log)
	files, err := f.stock(&cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	cfg.Foreign = files.Owns
	watcher, err := f.watcher(&cfg)
	if err != nil {
		return cli.Usage(err)
	}
	server, err := receiver.New(cfg)
	if err != nil {
		return cli.Usage(err)
	}
	// The budget counts the live memory of sessions. The limit makes the runtime collect garbage in time.
	debug.SetMemoryLimit(int64(min(uint64(f.memory), 1<<50)) + overheadBytes + int64(f.keep.reportJobs)*reportBytes)
	reporter := f.keep.reporter(store, cfg.Room, log)
	control, err := openControl(ctx, f.socket, func(ctx context.Context) serverStatus { return statusOf(ctx, server, reporter, watcher) }, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, control.close()) }()
	listeners, err := listeners(ctx, f, trusted, server, files, log)
	if err != nil {
		return err
	}
	if err := a.ready(listeners, f.socket); err != nil {
		return err
	}
	stop := f.keep.start(ctx, store, filepath.Join(f.dir, stateDir), reporter, log)
	err = runServer(ctx, append(listeners, control.handover.listener(server)), server.Run, files.Run, watcher.Run)
	stop()
	log.Info("stopped")
	return err
}

// warnOpen warns if other users may read the data directory: dumps contain the memory of crashed machines.
func warnOpen(dir string, log *slog.Logger) {
	const write, others = 0o020, 0o007
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&(write|others) != 0 {
		log.Warn("the data directory is open to others", "path", dir, "mode", info.Mode().String(), "close it with", "chmod g-w,o-rwx "+dir)
	}
}

// hangups keeps SIGHUP from ending the server until the returned function is called. A closed terminal sends it, and
// people who expect that the server reads its configuration again.
func hangups(log *slog.Logger) (stop func()) {
	hup, quit := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hup:
				log.Warn("SIGHUP: the configuration is not read again; restart the server to apply it")
			case <-quit:
				return
			}
		}
	}()
	return func() {
		signal.Stop(hup)
		close(quit)
	}
}

// stockDir is the directory of stock clients' files, in the data directory, until they are dumps.
const stockDir = "stock"

// stock opens the service for the files of stock kdump clients.
func (f *serveFlags) stock(cfg *receiver.Config) (*kdumpclients.Service, error) {
	files, err := kdumpclients.Open(kdumpclients.Config{
		Dir: filepath.Join(f.dir, stockDir), Store: cfg.Store, Log: cfg.Log, Tool: cfg.Tool, Room: cfg.Room,
		Grace: cfg.ResumeGrace, Codec: cfg.Codec,
	})
	if errors.Is(err, dumpdir.ErrLocked) {
		return nil, cli.WithHint(fmt.Errorf("another server uses the data directory %s", f.dir), "stop it, or start this server with another --data")
	}
	return files, err
}

// stateDir is the directory in the data directory for what no dump can rebuild.
const stateDir = "state"

// watcher returns what watches directories.
func (f *serveFlags) watcher(cfg *receiver.Config) (*watch.Watcher, error) {
	return watch.New(watch.Config{
		Dirs: f.watch, Store: cfg.Store, Room: cfg.Room, Log: cfg.Log, Tool: cfg.Tool, Grace: cfg.ResumeGrace, Codec: cfg.Codec,
		State: filepath.Join(f.dir, stateDir), Data: f.dir,
	})
}

const (
	// overheadBytes is the memory of the process apart from sessions: code, SQLite, stacks.
	overheadBytes = 64 << 20
	// reportBytes is the memory for the longest report: 8 MiB of JSON from the process that reads the dump, decoded, and encoded again.
	reportBytes = 64 << 20
)
