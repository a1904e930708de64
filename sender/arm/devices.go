package arm

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/initrd"
)

// devices lists the devices of the running machine, as initrd.Options.Devices, whose drivers the capture kernel needs: the
// network cards, if a target needs the network, and the watchdog. sys is where sysfs is mounted.
func devices(sys string, c *config.File, w way) []string {
	var list []string
	if slices.ContainsFunc(c.To, config.NeedsNetwork) {
		list = cardsInUse(sys)
	}
	for _, card := range w.devices {
		if !slices.Contains(list, card) {
			list = append(list, card)
		}
	}
	if c.Watchdog == config.WatchdogOff {
		return list
	}
	dogs, _ := filepath.Glob(filepath.Join(sys, "class/watchdog/watchdog*/device")) // the pattern is good
	for _, dog := range dogs {
		list = append(list, strings.TrimPrefix(dog, sys+"/"))
	}
	return list
}

// cardsInUse lists the network cards that are up, or all if none is. A machine may have a dozen cards that lead nowhere, and
// their drivers and firmware would take memory of the capture kernel.
func cardsInUse(sys string) []string {
	all := initrd.CardDevices(sys)
	var up []string
	for _, card := range all {
		state, _ := plainfile.Read(filepath.Join(sys, filepath.Dir(card), "operstate"), maxSmall) // one that has just gone is not up
		// Some drivers do not tell: Documentation/networking/operstates.rst.
		if s := strings.TrimSpace(string(state)); s == "up" || s == "unknown" {
			up = append(up, card)
		}
	}
	if len(up) == 0 {
		return all
	}
	return up
}
