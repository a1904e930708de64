package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestStockCurl sends with curl (libssh2) to a directory that does not exist. With scp://, curl ends the stream without the final status
// byte.
func TestStockCurl(t *testing.T) {
	t.Parallel()
	argv, _ := stockMakedumpfile(t, "-F", "-l", "-d", "31")
	flat := filepath.Join(t.TempDir(), "flat")
	stockPipe(t, argv, "", flat)
	const dir = "/var/crash/10.0.0.9-2026-03-01"
	for name, args := range map[string][]string{
		"sftp":                {"--ftp-create-dirs", "-Q", "-rename " + dir + "/vmcore-incomplete " + dir + "/vmcore.flat"},
		"sftp without mkdirs": nil,
		"scp":                 nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := sshServe(t)
			c := s.client(t, "web-18")
			home, key := t.TempDir(), s.keys["web-18"]
			known, err := os.ReadFile(s.known)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(home, ".ssh", "known_hosts"), known, 0o600); err != nil {
				t.Fatal(err)
			}
			scheme, _, _ := strings.Cut(name, " ")
			url := scheme + "://" + strings.TrimPrefix(c.host, "kdump@") + ":" + c.port + dir + "/vmcore-incomplete"
			c.run(t, 0, "", slices.Concat([]string{"env", "HOME=" + home, "curl", "--no-progress-meter", "-u", "kdump:", "--key", key, "--pubkey", key + ".pub", "-T", flat}, args, []string{url})...)
			s.await(t, "complete")
			if log := s.said(t); strings.Contains(log, "WARN") || strings.Contains(log, "ERROR") {
				t.Errorf("the receiver says\n%s", log)
			}
		})
	}
}
