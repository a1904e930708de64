package main

import (
	"testing"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/cmd/internal/clitest"
)

func TestHelpIsNotIndented(t *testing.T) { clitest.HelpIsNotIndented(t, newRoot(cli.Stdio{})) }
