package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/sender"
)

// partialJournal is the journal of a dump, and where its chunk records end (docs/layout.md, part 3).
type partialJournal struct {
	bytes []byte
	plan  int   // end of the last record before the first chunk
	ends  []int // of the chunk records, in the order of their arrival
	seqs  []uint64
}

// Numbers of docs/layout.md.
const (
	partialJournalHead = 16
	partialRecordHead  = 12
	partialRecordChunk = 8
)

func partialReadJournal(t *testing.T, dir string) *partialJournal {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, dumpdir.JournalName))
	if err != nil {
		t.Fatal(err)
	}
	j := &partialJournal{bytes: b}
	for at := partialJournalHead; at < len(b); {
		payload := at + partialRecordHead
		end := payload + int(binary.LittleEndian.Uint32(b[at+4:]))
		switch {
		case binary.LittleEndian.Uint16(b[at:]) == partialRecordChunk:
			j.ends = append(j.ends, end)
			j.seqs = append(j.seqs, binary.LittleEndian.Uint64(b[payload:]))
		case len(j.ends) == 0:
			j.plan = end
		}
		at = end
	}
	return j
}

// cut makes the directory that a receiver has of which the first n chunks came, and seals
// it as a receiver does whose sender did not come back.
func (j *partialJournal) cut(t *testing.T, from string, n int) (dir string, progress dumpdir.Progress) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dump")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	partialCopy(t, filepath.Join(from, dumpdir.VMCoreName), filepath.Join(dir, dumpdir.IncompleteName))
	partialCopy(t, filepath.Join(from, dumpdir.LogName), filepath.Join(dir, dumpdir.LogName))
	partialUnsealed(t, from, dir)
	end := j.plan
	if n > 0 {
		end = j.ends[n-1]
	}
	if err := os.WriteFile(filepath.Join(dir, dumpdir.JournalName), j.bytes[:end], 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := dumpdir.Resume(dumpdir.OS{}, dir, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	res, err := w.Seal(t.Context(), "cut")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, res.Progress
}

// partialUnsealed writes the manifest that a dump had before it was sealed.
func partialUnsealed(t *testing.T, from, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(from, dumpdir.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	var m dumpdir.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	m.State, m.EndTime, m.SHA256 = dumpdir.StateArriving, nil, ""
	if text, err = json.Marshal(&m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, dumpdir.ManifestName), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func partialCopy(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }() // only read
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}

// partialEvery is how many cuts libkdumpfile and makedumpfile read one of: they take seconds for each.
const partialEvery = 15

// TestPartialEveryChunk cuts a dump behind each of its chunks. What is sealed then is a valid file that
// has just the pages that came, whose log our reader prints: out of its memory once the log tier is
// through, and before that out of the text that was sent ahead.
func TestPartialEveryChunk(t *testing.T) {
	t.Parallel()
	c, err := lab.CaptureELF(t.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", Kexec: "c"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	whole := judgesServe(t).send(t, c.ELF, "31")
	want, err := os.ReadFile(filepath.Join(whole, dumpdir.LogName))
	if err != nil {
		t.Fatal(err)
	}
	logChunks := partialLogChunks(t, c.ELF)
	j := partialReadJournal(t, whole)
	missing := logChunks
	for n := range len(j.ends) {
		if n > 0 && j.seqs[n-1] < logChunks {
			missing--
		}
		dir, progress := j.cut(t, whole, n)
		partialVerify(t, dir, n)
		vmcore := filepath.Join(dir, dumpdir.VMCoreName)
		if n%partialEvery == 1 {
			if got := judgesPages(t, vmcore).Count; uint64(got) != progress.Present {
				t.Errorf("after %d chunks libkdumpfile reads %d pages, want %d", n, got, progress.Present)
			}
			if missing == 0 {
				partialDmesg(t, k, vmcore)
			}
		}
		code, log, said := partialExit(t, "log", vmcore)
		if code != 0 || !bytes.Equal([]byte(log), want) {
			t.Errorf("after %d chunks: exit code %d, %d bytes of log, want %d; %s", n, code, len(log), len(want), said)
		}
		if fromMemory := !strings.Contains(said, "warning"); fromMemory != (missing == 0) {
			t.Errorf("after %d chunks, %d of the log tier missing: log read from memory: %t; %s", n, missing, fromMemory, said)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d cuts; the log is in memory from chunk %d on", len(j.ends), logChunks)
}

func partialLogChunks(t *testing.T, elf string) uint64 {
	t.Helper()
	src, err := sender.Open(elf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }() // only read
	plan, err := src.Plan(t.Context(), pages.MaxLevel)
	if err != nil {
		t.Fatal(err)
	}
	n := plan.Sum.TierChunks(partialLogTier)
	if n == 0 || n > 4 {
		t.Fatalf("the log tier has %d chunks of %d; it should be there and small", n, plan.Sum.Chunks())
	}
	return n
}

// partialVerify holds that nothing is wrong with a cut dump but that pages are missing.
func partialVerify(t *testing.T, dir string, n int) {
	t.Helper()
	d, err := dumpdir.Open(dumpdir.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }() // only read
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d.State() != dumpdir.StatePartial || !rep.OK() {
		t.Errorf("after %d chunks: %s, %d findings", n, d.State(), len(rep.Findings))
	}
}
