package main

import (
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/cmd/internal/clitest"
	"github.com/corehaul/corehaul/sender/arm"
	"github.com/corehaul/corehaul/sender/arm/estimate"
)

var jsonDocs = clitest.JSONDocs{
	Page: filepath.Join("..", "..", "docs", "json.md"),
	Part: "corehaul-send",
	Commands: map[string]any{
		"corehaul-send send": sentDoc{}, "corehaul-send plan": planDoc{}, "corehaul-send initrd": packedDoc{}, "corehaul-send arm": armedDoc{},
		"corehaul-send disarm": armedDoc{}, "corehaul-send status": arm.Status{}, "corehaul-send estimate": estimateDoc{}, "corehaul-send embed": armedDoc{}, "corehaul-send version": versionDoc{},
	},
	Objects: map[string]any{
		"sent dump":           sentDoc{},
		"sending plan":        planDoc{},
		"planned pages":       planPages{},
		"planned bytes":       planBytes{},
		"packed image":        packedDoc{},
		"packed module":       packedModule{},
		"armed machine":       armedDoc{},
		"loaded image":        arm.Record{},
		"packed file":         arm.File{},
		"capture kernel":      arm.Kernel{},
		"part of an estimate": estimate.Part{},
		"status finding":      arm.Finding{},
		"machine status":      arm.Status{},
		"sysctl":              arm.Sysctl{},
		"estimate":            estimateDoc{},
		"sender version":      versionDoc{},
	},
}

func TestJSONDocs(t *testing.T) { jsonDocs.Check(t, newRoot(cli.Stdio{})) }
