package lab

import (
	"context"
	"path/filepath"
)

// E100Firmware returns the path of the firmware without which the driver e100 starts no i82551 (drivers/net/ethernet/intel/e100.c), and
// the name that the driver asks for.
func E100Firmware(ctx context.Context) (path, name string, err error) {
	const file = "e100/d102e_ucode.bin"
	dir, err := cached(ctx, "stock", "firmware-misc-nonfree-bookworm", func(dir string) error {
		const component = "non-free-firmware"
		apt, err := newAptOf(ctx, "bookworm", component, "bookworm-"+component+"-amd64", "amd64")
		if err != nil {
			return err
		}
		return apt.fetchFile(ctx, dir, "firmware-misc-nonfree", "lib/firmware/"+file)
	})
	return filepath.Join(dir, "lib/firmware", file), file, err
}
