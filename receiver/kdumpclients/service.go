package kdumpclients

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/hostname"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Config configures a Service.
type Config struct {
	// Dir has the files until they are dumps. It is created if it is missing. One process at a time has it open. Required.
	Dir string
	// Store takes the dumps. Required. The Service does not close it.
	Store storage.Store
	// Log gets a line for everything that an operator may have to know. It may be nil.
	Log *slog.Logger
	// Tool is the receiver's name and version.
	Tool string
	// Room is the space that may be taken of Store; nil for one without limits. Whatever else writes to the Store has the same Room.
	Room *admission.Room
	// Grace is how long an incomplete directory waits for its client before its dump is made. 0 means DefaultGrace.
	Grace time.Duration
	// Codec compresses pages that do not come compressed. 0 means snappy.
	Codec kdumpfile.Codec

	small int64 // maxSmall, except in tests
}

// DefaultGrace is the Grace of a Config without one.
const DefaultGrace = 10 * time.Minute

// Peer is the user of a tree.
type Peer struct {
	Host string // name that its key proves: see package hostname
	Addr string // its address, for people
}

// Service has the trees of all hosts and makes dumps of their files.
type Service struct {
	cfg  Config
	lock io.Closer // of Config.Dir

	jobs     *jobs
	decoders *decoders

	mu    sync.Mutex
	hosts map[string]*host
}

// Open opens the trees. Files that were arriving in an earlier process have broken off. The error matches dumpdir.ErrLocked if
// another process has the directory.
func Open(cfg Config) (*Service, error) {
	if cfg.Dir == "" || cfg.Store == nil {
		return nil, errors.New("kdumpclients: no directory or no store")
	}
	if cfg.Grace <= 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Codec == kdumpfile.Raw {
		cfg.Codec = kdumpfile.Snappy
	}
	if cfg.small == 0 {
		cfg.small = maxSmall
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Room == nil {
		cfg.Room = admission.NewRoom(cfg.Store, admission.Limits{}, cfg.Log)
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, err
	}
	lock, err := dumpdir.OS{}.Lock(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("files of stock kdump clients: %w", err)
	}
	s := &Service{cfg: cfg, lock: lock, jobs: newJobs(), decoders: newDecoders(), hosts: map[string]*host{}}
	if err := s.loadHosts(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

// Close releases the directory. Run must have returned, and no method may be called afterwards.
func (s *Service) Close() error { return s.lock.Close() }

// loadHosts opens the trees of an earlier process.
func (s *Service) loadHosts() error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if hostname.Check(e.Name()) != nil || !e.IsDir() {
			continue
		}
		if _, err := s.host(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// Tree returns the tree of the peer's host. The error matches storage.ErrBadName, or comes from the disk.
func (s *Service) Tree(p Peer) (Tree, error) {
	if err := hostname.Check(p.Host); err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrBadName, err)
	}
	h, err := s.host(p.Host)
	if err != nil {
		return nil, fmt.Errorf("files of host %s: %w", p.Host, err)
	}
	return &tree{host: h, peer: p}, nil
}

func (s *Service) host(name string) (*host, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[name]; h != nil {
		return h, nil
	}
	h := &host{svc: s, name: name, dir: filepath.Join(s.cfg.Dir, name), account: s.cfg.Room.Account(name), uploads: map[uint64]*upload{}}
	if err := h.load(); err != nil {
		return nil, err
	}
	s.hosts[name] = h
	return h, nil
}

// Owns reports whether the Service is going to seal an arriving dump.
func (s *Service) Owns(ref storage.Ref) bool {
	s.mu.Lock()
	h := s.hosts[ref.Host]
	s.mu.Unlock()
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.state.all() {
		if d.Dump != nil && d.Dump.ID == ref.ID && !d.Dump.Sealed {
			return true
		}
	}
	return false
}
