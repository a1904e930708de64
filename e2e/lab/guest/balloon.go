package main

import (
	"fmt"
	"os"
	"time"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// inflateBalloon asks the host to take some memory through virtio_balloon. The kernel
// marks these pages as logically offline. Without a balloon device nothing happens.
func inflateBalloon(total int64) error {
	if _, err := os.Stat("/sys/bus/virtio/drivers/virtio_balloon"); err != nil {
		return nil //nolint:nilerr // no driver, no balloon
	}
	// QEMU's notice does not always arrive, so ask again every second.
	for try := range 100 {
		if try%10 == 0 {
			say(guestcfg.WantBalloon)
		}
		time.Sleep(100 * time.Millisecond)
		now, err := memTotal()
		if err != nil {
			return err
		}
		if total-now >= guestcfg.BalloonMiB<<20 {
			return nil
		}
	}
	return fmt.Errorf("the balloon was not inflated by %d MiB", guestcfg.BalloonMiB)
}
