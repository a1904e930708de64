package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/receiver/sshd"
	"github.com/corehaul/corehaul/receiver/watch"
	"github.com/corehaul/corehaul/storage/stores"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// serveFlags are the flags of "serve" that the configuration file has too.
type serveFlags struct {
	data           string
	config         string // the file itself
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
}

// Defaults of the limits of the disk.
const (
	defaultReserve   = 1 << 30
	defaultHostDumps = 10000
)

// add adds the flags, with their defaults.
func (f *serveFlags) add(flags *pflag.FlagSet) {
	f.memory, f.reserve, f.commitBytes = receiver.DefaultMemory, defaultReserve, receiver.DefaultCommitBytes
	flags.StringVar(&f.data, "data", defaultData, dataUsage)
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

// serveSource is where the configuration of a server comes from: its command line and its environment, and a file. It can be read
// again and again.
type serveSource struct {
	given serveFlags // of the command line and the environment
	names []string   // of the flags that they set
}

// newServeSource returns the source of a command whose flags are f.
func newServeSource(f *serveFlags, flags *pflag.FlagSet) *serveSource {
	s := &serveSource{given: *f}
	flags.Visit(func(flag *pflag.Flag) { s.names = append(s.names, flag.Name) })
	return s
}

// serveConfig is the whole configuration of a server.
type serveConfig struct {
	serveFlags

	flags  *pflag.FlagSet // of serveFlags, to list their values by name
	file   *serveFile     // nil if there is none
	over   []string       // flags that rule over the file
	rules  []admission.Rule
	policy retentionFile
}

// read reads the configuration, and returns all that is wrong with it. It reads no file but the configuration itself.
func (s *serveSource) read() (*serveConfig, problems) {
	c := &serveConfig{flags: pflag.NewFlagSet("serve", pflag.ContinueOnError)}
	c.add(c.flags)
	c.serveFlags = s.given
	for _, name := range s.names {
		if f := c.flags.Lookup(name); f != nil {
			f.Changed = true
		}
	}
	c.findConfig(defaultServeFile)
	var found problems
	if c.config != "" {
		if c.file, found = readServeFile(c.config); c.file == nil {
			return c, found
		}
		over, bad := c.file.apply(c.flags)
		c.over, found = over, append(found, bad...)
		c.rules, c.policy = c.file.rules, c.file.Retention
	}
	found = append(found, c.contradictions(found)...)
	place := func(p *problem) int { // the file in its order, then what it lacks
		if p.line == 0 {
			return math.MaxInt
		}
		return p.line
	}
	slices.SortStableFunc(found, func(a, b *problem) int { return cmp.Compare(place(a), place(b)) })
	return c, found
}

// dir is the directory of the store, where the server keeps its own files.
func (c *serveConfig) dir() (string, error) { return stores.Dir(c.data) }

// socketPath is the path of the server's socket.
func (c *serveConfig) socketPath() (string, error) { return socketPath(c.data, c.socket) }

// contradictions returns what is missing, out of range, or contradicts something else. It leaves out what known problems have
// made wrong.
func (c *serveConfig) contradictions(known problems) (found problems) {
	wrong := func(is bool, err error, keys ...string) {
		if !is || known.about(keys...) {
			return
		}
		found.add(c.problem(keys[0], err))
	}
	addresses := len(c.tls)+len(c.ssh) > 0
	wrong(!addresses && len(c.watch) == 0 && !c.localOnly, cli.WithHint(errors.New("no address to listen on: --tls HOST:PORT, --ssh HOST:PORT"),
		"use --local-only if all connections come through OpenSSH's server ('corehaul receive')",
		"use --watch DIR if all dumps come through the file system"), "tls", "ssh", "watch", "local_only")
	wrong(addresses && c.localOnly, errors.New("--local-only cannot be used with an address to listen on (--tls, --ssh)"), "local_only", "tls", "ssh")
	wrong((c.authorizedKeys == "") != (len(c.ssh) == 0), errors.New("--ssh HOST:PORT and --authorized-keys FILE must be given together"), "ssh", "authorized_keys")
	wrong(c.maxHostDumps < 0, errors.New("--max-host-dumps must not be negative; 0 means no limit"), "max_host_dumps")
	wrong(c.stockIdle <= 0, errors.New("--stock-idle-timeout must be above zero, for example 1h"), "stock_idle_timeout")
	wrong(c.logFormat != "text" && c.logFormat != "json", fmt.Errorf("unknown log format %q; it is text or json", c.logFormat), "log_format")
	for _, err := range checkAddresses("tls", c.tls) {
		wrong(true, err, "tls")
	}
	for _, err := range checkAddresses("ssh", c.ssh) {
		wrong(true, err, "ssh")
	}
	for name, n := range map[string]int{"max-active": c.maxActive, "max-host-sessions": c.maxHost, "max-connections": c.maxConnections} {
		wrong(n < 0, fmt.Errorf("--%s must not be negative", name), keyOf(name))
	}
	least := cli.BytesValue(receiver.MinMemory)
	wrong(c.memory < least, fmt.Errorf("--memory %s is too little; the least is %s", &c.memory, &least), "memory")
	_, err := c.codec()
	wrong(err != nil, err, "compressor")
	bad := c.keep.problems()
	for _, key := range slices.Sorted(maps.Keys(bad)) {
		wrong(true, bad[key], key)
	}
	_, err = c.policy.policy()
	wrong(err != nil, err, c.policy.negative())
	dir, err := c.dir()
	wrong(err != nil, err, "data")
	if err == nil {
		for _, err := range split(watch.CheckDirs(c.watch, dir)) {
			wrong(true, err, "watch", "data")
		}
	}
	return found
}

// warnings says what is not wrong, but may not be meant: older spellings, and keys of the file that do not count.
func (c *serveConfig) warnings() []string {
	texts := c.oldKeys()
	for _, name := range c.over {
		texts = append(texts, fmt.Sprintf("--%s, or its environment variable, rules over %s of the file", name, keyOf(name)))
	}
	return texts
}

// oldKeys says which keys and values of the file are written in an older way.
func (c *serveConfig) oldKeys() (texts []string) {
	if c.file == nil {
		return nil
	}
	for _, k := range c.file.old {
		texts = append(texts, k.String())
	}
	return texts
}

// problem is something wrong with a key, with the line of the configuration file if its value is from there.
func (c *serveConfig) problem(key string, err error) *problem {
	if c.file != nil && !slices.Contains(c.over, strings.ReplaceAll(key, "_", "-")) {
		if _, ok := c.file.lines[key]; ok {
			return c.file.problem(key, err)
		}
	}
	return &problem{err: err, key: key}
}

// checkAddresses returns an error for each address that is none.
func checkAddresses(flag string, addrs []string) (errs []error) {
	for _, addr := range addrs {
		_, port, err := net.SplitHostPort(addr)
		if n, name := strconv.Atoi(port); err != nil || name == nil && (n < 0 || n > math.MaxUint16) {
			errs = append(errs, fmt.Errorf("--%s %q is not HOST:PORT, such as [::]:7420 for all addresses of this machine", flag, addr))
		}
	}
	return errs
}

// limits returns how much dumps may take.
func (f *serveFlags) limits() admission.Limits {
	return admission.Limits{Reserve: uint64(f.reserve), HostBytes: uint64(f.maxHostBytes), HostDumps: f.maxHostDumps}
}

// codec returns what compresses pages that do not come compressed.
func (f *serveFlags) codec() (kdumpfile.Codec, error) {
	codec, err := kdumpfile.ParseCodec(f.compressor)
	if err != nil || codec != kdumpfile.Snappy && codec != kdumpfile.Zstd {
		return codec, fmt.Errorf("--compressor %q: the receiver stores pages as snappy or zstd", f.compressor)
	}
	return codec, nil
}

// receiver returns the configuration of the receiver.
func (c *serveConfig) receiver(log *slog.Logger) (receiver.Config, error) {
	codec, err := c.codec()
	return receiver.Config{
		Log: log, Tool: "corehaul " + cli.Version(), Memory: uint64(c.memory), MaxActive: c.maxActive, MaxConnections: c.maxConnections,
		MaxHostSessions: c.maxHost, Rules: c.rules, StallTimeout: c.stallTimeout,
		ResumeGrace: c.resumeGrace, IdleTimeout: c.idleTimeout,
		CommitInterval: c.commitInterval, CommitBytes: uint64(c.commitBytes), Codec: codec,
	}, err
}
