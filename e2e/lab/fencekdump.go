package lab

import (
	"context"
	"path/filepath"
)

// FenceKdump returns the path of fence_kdump, the agent with which the nodes of a Pacemaker cluster wait for the message of a node that
// dumps. Only the program is unpacked; the package's dependencies are those of other agents.
func FenceKdump(ctx context.Context) (string, error) {
	const program = "usr/sbin/fence_kdump"
	dir, err := cached(ctx, "judges", "fence_kdump-bookworm-amd64", func(dir string) error {
		apt, err := newApt(ctx, "bookworm", "amd64")
		if err != nil {
			return err
		}
		return apt.fetchFile(ctx, dir, "fence-agents", program)
	})
	return filepath.Join(dir, program), err
}
