package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
)

// rsaKeys counts the pairs of RSA keys that this process has asked for.
var rsaKeys atomic.Int64

// WriteSSHKey writes a private key of one of KeyKinds, without a passphrase, to file, and its public key to file.pub. No other
// call of this process writes the same. Making a pair of RSA keys takes more than a second, so the cache keeps them.
func WriteSSHKey(ctx context.Context, kind, file, comment string) error {
	if kind != "rsa" {
		return makeSSHKey(ctx, kind, file, comment)
	}
	const name = "key"
	dir, err := cached(ctx, "rsa", fmt.Sprint(rsaKeys.Add(1)), func(dir string) error {
		return makeSSHKey(ctx, kind, filepath.Join(dir, name), "")
	})
	if err != nil {
		return err
	}
	for _, suffix := range []string{"", ".pub"} {
		key, err := os.ReadFile(filepath.Join(dir, name+suffix))
		if err != nil {
			return err
		}
		if err := os.WriteFile(file+suffix, key, 0o600); err != nil {
			return err
		}
	}
	_, err = run(ctx, "", "ssh-keygen", "-q", "-c", "-C", comment, "-f", file)
	return err
}

func makeSSHKey(ctx context.Context, kind, file, comment string) error {
	_, err := run(ctx, "", "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", file)
	return err
}
