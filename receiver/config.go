package receiver

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Config configures a Server. Zero fields take the defaults below.
type Config struct {
	// Store takes the dumps. Required. The Server does not close it.
	Store storage.Store
	// Log gets a line for everything that an operator may have to know. It may be nil.
	Log *slog.Logger
	// Tool is the receiver's name and version, for people at the sender.
	Tool string

	// Memory bounds what all sessions together hold, in bytes; at least MinMemory.
	Memory uint64
	// MaxActive is how many sessions may send pages at a time. The others wait in the queue. If Memory is small, fewer are
	// admitted.
	MaxActive int
	// MaxHostSessions is how many of them may be of one host; 0 for no limit. Dumps of other
	// hosts pass those that wait for it.
	MaxHostSessions int
	// Room is the space that dumps may take of Store; nil for one without limits. Whatever else writes to the Store has the same Room.
	Room *admission.Room
	// Rules say what is taken of which dump at the start, see SetRules; the first that matches counts. Without one, all is.
	Rules []admission.Rule
	// Foreign, when set, names arriving dumps that another part of the process writes and is going to seal.
	Foreign func(storage.Ref) bool
	// MaxConnections is how many connections may be open. More are closed at once. One host may have sessions on half of
	// them: it must not shut out the others, and a fleet may share one identity. Peers of one address that are not
	// authenticated yet may have a quarter.
	MaxConnections int

	// ResumeGrace is how long a dump whose sender broke off waits for it before it is sealed.
	ResumeGrace time.Duration
	// IdleTimeout is how long one message of a peer may take to arrive. A sender's heartbeat comes four times as often.
	IdleTimeout time.Duration
	// StallTimeout is how long a sender with a slot may be alive without sending pages, before another one gets the slot.
	StallTimeout time.Duration
	// CommitInterval is the longest time, and CommitBytes about the most page data, between
	// two commits (fsyncs) of a session.
	CommitInterval time.Duration
	CommitBytes    uint64
	// SealAfter is the length of a vmcore, in bytes, from which on the sender of a complete dump goes before the seal, which reads the
	// whole file for its SHA-256. A shorter one is sealed in no time, and whoever looks then finds it done.
	SealAfter int64
	// Codec compresses pages that do not come as page records: Snappy or Zstd.
	Codec kdumpfile.Codec
}

// Defaults of Config.
const (
	DefaultMemory         = 512 << 20
	DefaultMaxActive      = 8
	DefaultMaxConnections = 1024
	DefaultResumeGrace    = 10 * time.Minute
	DefaultIdleTimeout    = time.Minute
	DefaultStallTimeout   = 5 * time.Minute
	DefaultCommitInterval = 200 * time.Millisecond
	DefaultCommitBytes    = 16 << 20
	DefaultSealAfter      = 64 << 20
	DefaultCodec          = kdumpfile.Snappy
)

// withDefaults returns cfg with the defaults filled in, or what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	if c.Store == nil {
		return c, errors.New("receiver: no store")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&c.Room, admission.NewRoom(c.Store, admission.Limits{}, c.Log))
	c.fill()
	return c, c.check()
}

// Check returns why New would not take c. It needs no Store.
func (c Config) Check() error {
	c.fill()
	return c.check()
}

// fill sets the defaults of numbers and names.
func (c *Config) fill() {
	setDefault(&c.Tool, "corehaul")
	setDefault(&c.Memory, DefaultMemory)
	setDefault(&c.MaxActive, DefaultMaxActive)
	setDefault(&c.MaxConnections, DefaultMaxConnections)
	setDefault(&c.ResumeGrace, DefaultResumeGrace)
	setDefault(&c.IdleTimeout, DefaultIdleTimeout)
	setDefault(&c.StallTimeout, DefaultStallTimeout)
	setDefault(&c.CommitInterval, DefaultCommitInterval)
	setDefault(&c.CommitBytes, DefaultCommitBytes)
	setDefault(&c.SealAfter, DefaultSealAfter)
	setDefault(&c.Codec, DefaultCodec)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) check() error {
	switch {
	case c.Memory < MinMemory:
		return fmt.Errorf("receiver: memory of %d bytes is less than %d", c.Memory, MinMemory)
	case c.MaxActive < 0 || c.MaxHostSessions < 0 || c.MaxConnections < 0:
		return fmt.Errorf("receiver: a limit is negative: active sessions %d, sessions of a host %d, connections %d",
			c.MaxActive, c.MaxHostSessions, c.MaxConnections)
	case c.ResumeGrace < 0 || c.IdleTimeout < 0 || c.StallTimeout < 0 || c.CommitInterval < 0:
		return errors.New("receiver: a duration is negative")
	case c.Codec != kdumpfile.Snappy && c.Codec != kdumpfile.Zstd:
		return fmt.Errorf("receiver: pages cannot be stored as %v, only as snappy or zstd", c.Codec)
	}
	for i := range c.Rules {
		if err := c.Rules[i].Check(); err != nil {
			return fmt.Errorf("receiver: %s: %w", c.Rules[i].Name, err)
		}
	}
	return nil
}
