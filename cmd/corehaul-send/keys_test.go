package main

import (
	"testing"

	"github.com/corehaul/corehaul/sender"
	"github.com/corehaul/corehaul/sender/config"
)

// TestConnectors: there is a way to connect to the targets of each scheme, and of no other.
func TestConnectors(t *testing.T) {
	known := connectors(config.Keys{}, sender.OpenMounted, nil)
	for _, s := range config.Schemes {
		if known[s.Name].prepare == nil {
			t.Errorf("no connector for %s://", s.Name)
		}
		delete(known, s.Name)
	}
	for name := range known {
		t.Errorf("a connector for %s://, which is no scheme of targets", name)
	}
}
