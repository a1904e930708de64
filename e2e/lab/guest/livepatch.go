package main

import (
	"os"
	"time"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// callPatched has the module call a function after a live patch has replaced it. The kernel moves each task to the patch when the task's
// stack shows that it is in no function that changes.
func callPatched() error {
	if err := loadModules([]string{guestcfg.PatchPath}); err != nil {
		return err
	}
	for state := []byte("1\n"); string(state) != "0\n"; time.Sleep(20 * time.Millisecond) {
		var err error
		if state, err = os.ReadFile("/sys/kernel/livepatch/crashpatch/transition"); err != nil {
			return err
		}
	}
	return crashmodKind("livepatch")
}
