package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/storage/retention"
)

// reloader reads the configuration of a running server again. It makes all of it count that can, or nothing.
type reloader struct {
	source *serveSource
	log    *slog.Logger
	level  *slog.LevelVar
	server *receiver.Server
	keeper *retention.Runner
	tls    *receiver.TLSConfig // nil if the server does not listen for TLS
	trust  *trust
	live   []string // flags that a reload makes count

	mu      sync.Mutex // held while the configuration is read: one request after the other
	running settings
}

// reloader returns what reads the configuration of the server again.
func (s *service) reloader(source *serveSource) *reloader {
	r := &reloader{source: source, log: s.log, level: s.level, server: s.server, keeper: s.keeper, tls: s.tls, trust: s.trusted}
	r.live = []string{"log-level"}
	if s.tls != nil {
		r.live = append(r.live, "ca")
	}
	if s.trusted.keys != nil {
		r.live = append(r.live, "authorized-keys")
	}
	r.running = s.config.settings(s.trusted, r.live)
	return r
}

// reloadResult is the document of "reload --json".
type reloadResult struct {
	Type     string            `json:"type"`     // "reload"
	Config   string            `json:"config"`   // the file; empty if there is none
	Changed  []change          `json:"changed"`  // what counts now
	Restart  []change          `json:"restart"`  // what counts after a restart
	Warnings []string          `json:"warnings"` // for people
	Problems []problemDocument `json:"problems"` // if there are any, nothing has changed
}

// reload reads the configuration again, logs what has changed, and returns it.
func (r *reloader) reload(by string) reloadResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := tellReloading(r.log)
	result := r.read()
	r.report(by, &result)
	ended(result.status())
	return result
}

// read reads the configuration and makes it count.
func (r *reloader) read() reloadResult {
	c, found := r.source.read()
	result := reloadResult{Type: "reload", Config: c.config, Changed: []change{}, Restart: []change{}, Warnings: []string{}, Problems: []problemDocument{}}
	if len(found) == 0 {
		found = r.apply(c, &result)
	}
	for _, p := range found {
		result.Problems = append(result.Problems, p.document())
	}
	return result
}

// apply makes a configuration count, or returns why none of it does.
func (r *reloader) apply(c *serveConfig, result *reloadResult) problems {
	t, found := c.trusted(r.log)
	policy, err := c.policy.policy()
	if err != nil {
		found.add(c.problem("retention", err))
	}
	t.onlyOf(r.trust)
	if len(found) == 0 && r.tls != nil {
		found.addErr("ca", r.tls.Set(t.receiver.ServerConfig()))
	}
	if len(found) > 0 {
		return found
	}
	// Nothing below can fail.
	now := c.settings(t, r.live)
	changed, restart := r.running.diff(now)
	r.running.take(now)
	r.level.Set(c.logLevel)
	r.server.SetRules(c.rules)
	r.trust.receiver = t.receiver
	if t.keys != r.trust.keys {
		r.trust.keys.Use(t.keys)
	}
	if slices.ContainsFunc(changed, func(x change) bool { return strings.HasPrefix(x.Key, "retention.") }) {
		r.keeper.SetPolicy(policy)
	}
	result.Changed, result.Restart = append(result.Changed, changed...), append(result.Restart, restart...)
	result.Warnings = append(result.Warnings, c.warnings()...)
	if slices.ContainsFunc(changed, func(x change) bool { return x.Key == receiverKey }) {
		result.Warnings = append(result.Warnings, newKeyWarning)
	}
	return nil
}

const newKeyWarning = "the receiver has another key: senders that know the old one refuse to connect until they have the identities that 'corehaul ca issue' makes now"

// onlyOf makes t that of the listeners that a server has, whatever listeners the configuration wants after a restart.
func (t *trust) onlyOf(running *trust) {
	if t.receiver == nil || running.receiver == nil {
		t.receiver = running.receiver
	}
	if t.keys == nil || running.keys == nil {
		t.keys = running.keys
	}
}

// report logs the result.
func (r *reloader) report(by string, result *reloadResult) {
	log := r.log.With("by", by, "path", result.Config)
	for i := range result.Problems {
		p := &result.Problems[i]
		log := log
		if len(p.Hints) > 0 {
			log = log.With("hint", strings.Join(p.Hints, "; "))
		}
		log.Error("not reloaded, the configuration before still counts: " + p.Error)
	}
	if len(result.Problems) > 0 {
		return
	}
	for _, x := range result.Changed {
		log.Info("configuration changed", "key", x.Key, "old", x.Old, "new", x.New)
	}
	for _, x := range result.Restart {
		log.Warn("a changed key counts only after a restart", "key", x.Key, "old", x.Old, "new", x.New)
	}
	for _, w := range result.Warnings {
		log.Warn("configuration: " + w)
	}
	log.Info("reloaded the configuration", "changed", len(result.Changed), "restart", len(result.Restart))
}

// status is the state that "systemctl status" shows.
func (result *reloadResult) status() string {
	now := cli.Time(time.Now())
	switch {
	case len(result.Problems) > 0:
		return fmt.Sprintf("receiving dumps; the reload at %s failed, the configuration before it counts: %s", now, result.Problems[0].Error)
	case len(result.Restart) > 0:
		return fmt.Sprintf("receiving dumps; reloaded at %s; %d changed keys need a restart", now, len(result.Restart))
	}
	return "receiving dumps; reloaded at " + now
}

func newReload(a *app) *cobra.Command {
	var config, socket string
	cmd := &cobra.Command{
		Use: "reload", GroupID: groupServer, Args: cobra.NoArgs,
		Short: "Make the running server read its configuration again",
		Long: `Ask the running server, over its local socket, to read its configuration again, with all
files that it names. Rules, retention, certificates and keys, SSH keys and the level of the
log count from then on. Sessions under way go on. If anything is wrong, nothing changes, and
the exit code is 2. Print what has changed, and which changes need a restart.

The socket is that in the data directory, or the one that --socket names. --config FILE says
where both are, as for 'serve'; without flags it is ` + defaultServeFile + `, if that exists.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := a.reloadSocket(cmd, config, socket)
			if err != nil {
				return err
			}
			return a.reload(cmd.Context(), path)
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	cmd.Flags().StringVar(&socket, "socket", "", "socket of the server (default "+socketName+" in the data directory)")
	cmd.Flags().StringVar(&config, "config", "", "configuration file of the server, to find its socket")
	return cmd
}

// reloadSocket returns the socket of the server that is meant.
func (a *app) reloadSocket(cmd *cobra.Command, config, socket string) (string, error) {
	flags := cmd.Flags()
	if config == "" && !flags.Changed("data") && !flags.Changed("socket") {
		if _, err := os.Stat(defaultServeFile); !errors.Is(err, fs.ErrNotExist) {
			config = defaultServeFile
		}
	}
	if config != "" {
		file, found := readServeFile(config)
		if file == nil || found.about("data", "socket") { // the server would find the same
			return "", cli.WithHint(cli.Usage(found), "the server was not asked: the configuration before still counts")
		}
		if file.Data != nil && !flags.Changed("data") {
			a.data = *file.Data
		}
		if file.Socket != nil && !flags.Changed("socket") {
			socket = *file.Socket
		}
	}
	return a.socketPath(socket)
}

// reload asks the server at the socket.
func (a *app) reload(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	var result reloadResult
	if err := ask(ctx, socket, http.MethodPost, reloadPath, &result); err != nil {
		return err
	}
	if a.json {
		if err := cli.JSON(a.stdio.Out, result); err != nil || len(result.Problems) == 0 {
			return err
		}
		return cli.Usage(nil)
	}
	if len(result.Problems) > 0 {
		a.printProblems(result.Problems)
		return cli.Usagef("the server was not reloaded: the configuration before still counts")
	}
	return a.printReload(&result)
}

func (a *app) printReload(result *reloadResult) error {
	for _, w := range result.Warnings {
		a.stdio.Warn("corehaul", "%s", w)
	}
	text := "reloaded " + result.Config
	if result.Config == "" {
		text = "reloaded: the server has no configuration file, and has read the files of certificates and keys again"
	}
	lines := []string{text}
	for i := range result.Changed {
		lines = append(lines, "changed: "+result.Changed[i].String())
	}
	for i := range result.Restart {
		lines = append(lines, "needs a restart: "+result.Restart[i].String())
	}
	if len(lines) == 1 {
		lines = append(lines, "nothing has changed")
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(a.stdio.Out, cli.Printable(line)); err != nil {
			return err
		}
	}
	return nil
}

// printProblems prints problems to standard error, as errors of commands are.
func (a *app) printProblems(list []problemDocument) {
	for i := range list {
		err := errors.New(list[i].Error)
		cli.Report(a.stdio.Err, "corehaul", cli.WithHint(err, list[i].Hints...))
	}
}
