package watch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// BenchmarkTake takes a dump of 64 MiB of pages: it is copied, made durable, verified page by page, and listed. The peer copies the same directory,
// makes it durable, and checks its sums, as a person would.
func BenchmarkTake(b *testing.B) {
	m := dumpdirtest.NewMachine(1, 16384, 256)
	m.Meta.Transport = "nfs"
	var took, peer time.Duration
	var size int64
	for b.Loop() {
		r := newRig(b)
		dir := r.send(m)
		st, err := os.Stat(filepath.Join(dir, "vmcore"))
		if err != nil {
			b.Fatal(err)
		}
		size = st.Size()
		begin := time.Now()
		r.look()
		took += time.Since(begin)
		if len(r.list()) != 1 {
			b.Fatal(r.log.String())
		}
		begin = time.Now()
		script := "cp -a \"$0\" \"$1\" && sync -f \"$1\" && cd \"$1\" && sha256sum -c --quiet SHA256SUMS"
		if out, err := exec.CommandContext(b.Context(), "sh", "-c", script, dir, filepath.Join(r.data, "copy")).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		peer += time.Since(begin)
	}
	b.ReportMetric(float64(size)*float64(b.N)/1e6/took.Seconds(), "MB/s")
	b.ReportMetric(took.Seconds()/peer.Seconds(), "x-cp-sha256sum")
}
