package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// runs makes a row with these wall times. CPU times are twice and three times as long.
func runs(r Row, walls ...float64) Row {
	for _, w := range walls {
		r.Runs = append(r.Runs, Sample{Wall: w, SenderCPU: 2 * w, ReceiverCPU: 3 * w, Wire: mib, Stored: 2 * mib})
	}
	r.summarize()
	return r
}

func TestMedianAndSpreadAreOfEachNumber(t *testing.T) {
	r := Row{Runs: []Sample{{Wall: 3, Wire: 10}, {Wall: 1, Wire: 30}, {Wall: 2, Wire: 20}, {Wall: 9, Wire: 20}}}
	r.summarize()
	want := Row{Runs: r.Runs, Median: Sample{Wall: 2.5, Wire: 20}, Min: Sample{Wall: 1, Wire: 10}, Max: Sample{Wall: 9, Wire: 30}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
}

// report has two cells, and peers of both kinds in the first.
func report() *Report {
	cell := Cell{Link: Loopback, Dump: Busy, Level: 31}
	bound := Cell{Link: Loopback, Dump: Busy, Level: 31, Bound: true}
	return &Report{
		Rounds: 3, Idle: map[string]float64{"sshd": 0.25},
		Links: []Calibration{{Link: Loopback, Throughput: 2e9, RTT: 0.0005}},
		Rows: []Row{
			runs(Row{Cell: cell, Method: "ours <&>"}, 1, 2, 3),
			runs(Row{Cell: cell, Method: "slow peer", Peer: true}, 8),
			runs(Row{Cell: cell, Method: "peer", Peer: true}, 4, 4, 4),
			runs(Row{Cell: cell, Method: "our file", Local: true}, 3),
			runs(Row{Cell: cell, Method: "peer's file", Peer: true, Local: true}, 2),
			runs(Row{Cell: bound, Method: "ours alone"}, 1),
		},
	}
}

func TestTablesHaveRatiosToTheBestPeerOfTheirKind(t *testing.T) {
	text := report().Tables()
	for _, line := range []string{
		"### loopback, busy-4g, level 31\n",
		"### loopback, busy-4g, level 31, each side on a core of its own\n",
		"| loopback | 2000 | 0.50 |\n",
		"| ours <&> | 2.00 | 1.00..3.00 | 0.50 | 4.00 | 6.00 | 0.50 | 1.0 | 1.00 | 2.0 | 1.00 | 0 | 0 |\n",
		"| peer | 4.00 | 4.00..4.00 |  | 8.00 | 12.00 |  | 1.0 |  | 2.0 |  | 0 | 0 |\n",
		"| our file | 3.00 | 3.00..3.00 | 1.50 | 6.00 |  | 1.50 |  | 1.00 | 2.0 | 1.00 | 0 |  |\n",
		"| ours alone | 1.00 | 1.00..1.00 |  | 2.00 | 3.00 |  | 1.0 |  | 2.0 |  | 0 | 0 |\n",
		"| sshd | 0.25 |\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
}

func TestChartIsXMLAndHasTheMethods(t *testing.T) {
	picture, err := report().Chart()
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(picture))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
	}
	for text, want := range map[string]bool{"ours &lt;&amp;&gt;": true, "our file": true, "ours alone": false} {
		if got := strings.Contains(string(picture), text); got != want {
			t.Errorf("the chart has %q: %t, want %t", text, got, want)
		}
	}
}

func TestReportGoesBetweenTheMarksOfAPage(t *testing.T) {
	dir := t.TempDir()
	file, page := filepath.Join(dir, "bench.json"), filepath.Join(dir, "page.md")
	if err := report().Write(file); err != nil {
		t.Fatal(err)
	}
	r, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(report(), r); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(page, []byte("before\n"+beginMark+"old\n"+endMark+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteInto(page); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(page)
	if want := "before\n" + beginMark + r.Tables() + endMark + "after\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if err := r.WriteInto(file); err == nil {
		t.Error("no error for a page without marks")
	}
}

func TestCounters(t *testing.T) {
	const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  near:5000000000       9    0    0    0     0          0         0       77       2    0    0    0     0       0          0
 short: 1 2 3
`
	sent, received, err := parseCounters(text, "near")
	if err != nil || sent != 77 || received != 5e9 {
		t.Errorf("got %d and %d, %v", sent, received, err)
	}
	for _, device := range []string{"short", "far", "face"} {
		if _, _, err := parseCounters(text, device); err == nil {
			t.Errorf("no error for the device %s", device)
		}
	}
}

func TestMakedumpfileTellsWhatItCan(t *testing.T) {
	version, can := parseVersion("makedumpfile: version 1.7.6 (released on 23 Oct 2024)\nlzo\tenabled\nsnappy\tdisabled\nzstd\tenabled\n\n")
	if diff := cmp.Diff(map[string]bool{"lzo": true, "zstd": true}, can); version != "1.7.6" || diff != "" {
		t.Errorf("version %q, %s", version, diff)
	}
}

func TestFilter(t *testing.T) {
	f := Filter{Links: []string{Loopback}, Dumps: []string{Idle}, Levels: []string{"1"}, Methods: []string{"corehaul tls", "corehaul nfs"}}
	for _, tc := range []struct {
		jobs []Job
		want int
	}{{Quick(), 1}, {Full(), 4}} {
		if got := len(f.Of(tc.jobs)); got != tc.want {
			t.Errorf("%d jobs left of %d, want %d", got, len(tc.jobs), tc.want)
		}
	}
	for _, j := range Full() {
		if j.Method.Local && j.Link != Loopback {
			t.Errorf("%s: %s has no network", j.Cell, j.Method.Name)
		}
		if (j.Method.receiver == nil) != j.Method.Local {
			t.Errorf("%s: a receiver: %t", j.Method.Name, j.Method.receiver != nil)
		}
	}
}

func TestQuotedWordsStayWords(t *testing.T) {
	if got, want := quoteAll([]string{"a b", "it's", "$x"}), `'a b' 'it'\''s' '$x'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
