package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/receiver/kdumpclients"
	"github.com/corehaul/corehaul/receiver/watch"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/retention"
	"github.com/corehaul/corehaul/storage/stores"
)

func newServe(a *app) *cobra.Command {
	var f serveFlags
	var check bool
	cmd := &cobra.Command{
		Use: "serve", GroupID: groupServer, Args: cobra.NoArgs,
		Short: "Receive dumps",
		Long: `Receive dumps until SIGTERM or SIGINT. When the server listens, it prints one line "ready"
with its addresses to standard output. It logs to standard error. --config names a TOML
file; its keys are the names of the flags with underscores. Flags and environment
variables override it. Only that file can have rules on which dumps to take, and how much
of them. --ssh accepts dumps over SSH from corehaul-send and from stock kdump clients with
ssh, scp and sftp. --watch takes in the dumps that others write into a directory of this
machine. "corehaul status" shows what the server does.

--check reads the configuration, and all files that it names, as the server would, and
prints everything that is wrong. It listens on nothing and changes nothing. SIGHUP and
"corehaul reload" make a running server read its configuration again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			source := newServeSource(&f, cmd.Flags())
			if check {
				return a.checkServe(cmd.Context(), source)
			}
			return a.serve(cmd.Context(), source)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVar(&check, "check", false, "only say what is wrong with the configuration; exit code 2 if anything is")
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) serve(ctx context.Context, source *serveSource) (err error) {
	c, found := source.read()
	if len(found) > 0 {
		return cli.Usage(found)
	}
	sockets, err := passedSockets(c)
	if err != nil {
		return cli.Usage(err)
	}
	defer sockets.close()
	hup := catchHangups()
	defer hup.stop()
	level := new(slog.LevelVar)
	level.Set(c.logLevel)
	log := c.logger(a, level)
	slog.SetDefault(log) // the store's own lines, in the same form
	for _, w := range c.oldKeys() {
		log.Warn("configuration: "+w, "path", c.config)
	}
	trusted, found := c.trusted(log)
	if len(found) > 0 {
		return cli.Usage(found)
	}
	store, err := stores.Open(ctx, c.data, storage.OpenOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := writable(ctx, store); err != nil {
		return err
	}
	s := &service{app: a, config: c, log: log, level: level, trusted: trusted, sockets: sockets, hup: hup, store: store}
	return s.run(ctx, source)
}

// service is a server with all its parts.
type service struct {
	app     *app
	config  *serveConfig
	log     *slog.Logger
	level   *slog.LevelVar
	trusted *trust
	sockets sockets
	hup     *hangups
	store   storage.Store

	dir, socket string
	room        *admission.Room
	files       *kdumpclients.Service
	watcher     *watch.Watcher
	tls         *receiver.TLSConfig // nil without a listener
	server      *receiver.Server
	reporter    *reporter
	keeper      *retention.Runner
}

// run makes the parts and serves until ctx is done.
func (s *service) run(ctx context.Context, source *serveSource) (err error) {
	c := s.config
	if err := s.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.files.Close()) }()
	// The budget counts the live memory of sessions. The limit makes the runtime collect garbage in time.
	debug.SetMemoryLimit(int64(min(uint64(c.memory), 1<<50)) + overheadBytes + int64(c.keep.reportJobs)*reportBytes)
	reloads := s.reloader(source)
	control, err := openControl(ctx, s.socket, controlAnswers{
		status: func(ctx context.Context) serverStatus { return statusOf(ctx, s.server, s.reporter, s.watcher) },
		reload: func() reloadResult { return reloads.reload("corehaul reload") },
	}, s.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, control.close()) }()
	listeners, err := s.listeners(ctx)
	if err != nil {
		return err
	}
	if err := s.app.ready(listeners, s.socket); err != nil {
		return err
	}
	stop := c.keep.start(ctx, s.store, filepath.Join(s.dir, stateDir), s.reporter, s.keeper, s.log)
	tellStop := tellStopping(ctx, s.log)
	stopHangups := s.hup.serve(func() { reloads.reload("SIGHUP") })
	err = runServer(ctx, append(listeners, control.handover.listener(s.server)), s.server.Run, s.files.Run, s.watcher.Run, s.feedWatchdog)
	tellStop()
	stopHangups()
	stop()
	s.log.Info("stopped")
	return err
}

// open makes the parts that take dumps.
func (s *service) open() (err error) {
	c := s.config
	if s.dir, err = c.dir(); err != nil {
		return err
	}
	if s.socket, err = c.socketPath(); err != nil {
		return err
	}
	if open := openToOthers(s.dir); open != nil {
		s.log.Warn("the data directory is open to others", "path", s.dir, "mode", open.String(), "close it with", closeToOthers+s.dir)
	}
	cfg, err := c.receiver(s.log)
	if err != nil {
		return cli.Usage(err)
	}
	policy, err := c.policy.policy()
	if err != nil {
		return cli.Usage(err)
	}
	s.room = admission.NewRoom(s.store, c.limits(), s.log)
	cfg.Store, cfg.Room = s.store, s.room
	if s.files, err = c.stock(s.dir, &cfg); err != nil {
		return err
	}
	cfg.Foreign = s.files.Owns
	if s.watcher, err = c.watcher(s.dir, &cfg); err == nil {
		s.server, err = receiver.New(cfg)
	}
	if err != nil {
		return cli.Usage(errors.Join(err, s.files.Close()))
	}
	if s.trusted.receiver != nil {
		if s.tls, err = receiver.NewTLSConfig(s.trusted.receiver.ServerConfig()); err != nil {
			return errors.Join(err, s.files.Close())
		}
	}
	s.reporter = c.keep.reporter(s.store, s.room, s.log)
	s.keeper = &retention.Runner{Store: s.store, Policy: policy, Log: s.log}
	return nil
}

// closeToOthers begins the command that closes a data directory.
const closeToOthers = "chmod g-w,o-rwx "

// openToOthers returns the mode of a data directory if other users may read it, else nil: dumps contain the memory of crashed machines.
func openToOthers(dir string) *os.FileMode {
	const write, others = 0o020, 0o007
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm()&(write|others) == 0 {
		return nil
	}
	mode := info.Mode()
	return &mode
}

// stockDir is the directory of stock clients' files, in the data directory, until they are dumps.
const stockDir = "stock"

// stock opens the service for the files of stock kdump clients.
func (c *serveConfig) stock(dir string, cfg *receiver.Config) (*kdumpclients.Service, error) {
	files, err := kdumpclients.Open(kdumpclients.Config{
		Dir: filepath.Join(dir, stockDir), Store: cfg.Store, Log: cfg.Log, Tool: cfg.Tool, Room: cfg.Room,
		Grace: cfg.ResumeGrace, Codec: cfg.Codec,
	})
	if errors.Is(err, dumpdir.ErrLocked) {
		return nil, cli.WithHint(fmt.Errorf("another server uses the data directory %s", dir), "stop it, or start this server with another --data")
	}
	return files, err
}

// stateDir is the directory in the data directory for what no dump can rebuild.
const stateDir = "state"

// watcher returns what watches directories.
func (c *serveConfig) watcher(dir string, cfg *receiver.Config) (*watch.Watcher, error) {
	return watch.New(watch.Config{
		Dirs: c.watch, Store: cfg.Store, Room: cfg.Room, Log: cfg.Log, Tool: cfg.Tool, Grace: cfg.ResumeGrace, Codec: cfg.Codec,
		State: filepath.Join(dir, stateDir), Data: dir,
	})
}

const (
	// overheadBytes is the memory of the process apart from sessions: code, SQLite, stacks.
	overheadBytes = 64 << 20
	// reportBytes is the memory for the longest report: 8 MiB of JSON from the process that reads the dump, decoded, and encoded again.
	reportBytes = 64 << 20
)
