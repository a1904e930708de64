package crashtree_test

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/crashtree"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestSums compares files with the SHA256SUMS beside them. A dump whose file differs is not complete, whatever its pages say, and does not
// stand in the way of the right one.
func TestSums(t *testing.T) {
	tr := newTree(t)
	good := (&vmcoretest.Kdump{Utsname: [6]string{"Linux", "web1", "6.1", "#1", "x86_64"}, NrCPUs: 1, Pages: vmcoretest.Pages(1, 256, 4096)}).Bytes()
	bad := []byte(string(good))
	bad[len(bad)-4096*5+7] ^= 1 // in a page that is stored as it is and is no part of the id
	sums := fmt.Sprintf("%x  vmcore\n", sha256.Sum256(good))
	tr.put("bad/vmcore", bad)
	tr.put("bad/SHA256SUMS", []byte(sums+"nonsense\n"))
	want := [2]string{"imported partial", "the SHA-256 of vmcore is not the one in SHA256SUMS"}
	first := tr.want(map[string][2]string{"bad/vmcore": want})["bad/vmcore"]
	if first.Compared != "SHA256SUMS" || len(first.Warnings) != 1 || !strings.Contains(first.Warnings[0], "1 lines") {
		t.Errorf("%+v", first)
	}
	tr.entry(first)
	want[0] = "present partial"
	if again := tr.want(map[string][2]string{"bad/vmcore": want})["bad/vmcore"]; again.Ref != first.Ref {
		t.Errorf("%+v", again)
	}
	path := tr.put("good/vmcore", good)
	tr.put("good/SHA256SUMS", []byte(sums))
	right := tr.want(map[string][2]string{"good/vmcore": {"imported complete"}}, path)["good/vmcore"]
	if right.Compared != "SHA256SUMS" || right.Ref == first.Ref {
		t.Errorf("%+v", right)
	}
	tr.want(map[string][2]string{"bad/vmcore": {"present complete"}, "good/vmcore": {"present complete"}})
	p := pieces(5)
	tr.put("set/p1", p[0])
	tr.put("set/p2", p[1])
	tr.put("set/SHA256SUMS", fmt.Appendf(nil, "%x  p1\n%x  p2\n", sha256.Sum256(p[0]), sha256.Sum256(good)))
	if o := tr.run(tr.root)["set/p1"]; o.Result != crashtree.Imported || o.State != "partial" || !strings.Contains(o.Reason, "of p2 is not") {
		t.Errorf("%+v", o)
	}
}

// TestMD5 compares files with what md5sum wrote beside them. A SHA-256 counts more.
func TestMD5(t *testing.T) {
	tr := newTree(t)
	dump := func(seed uint64) []byte {
		return (&vmcoretest.Kdump{Utsname: [6]string{"Linux", "web1", "6.1", "#1", "x86_64"}, NrCPUs: 1, Pages: vmcoretest.Pages(seed, 256, 4096)}).Bytes()
	}
	line := func(b []byte) []byte { return fmt.Appendf(nil, "%x *vmcore\n", md5.Sum(b)) }
	tr.put("good/vmcore", dump(1))
	tr.put("good/vmcore.md5", line(dump(1)))
	tr.put("bad/vmcore", dump(2))
	tr.put("bad/MD5SUMS", line(dump(1)))
	tr.put("both/vmcore", dump(3))
	tr.put("both/md5sum.txt", line(dump(1)))
	tr.put("both/SHA256SUMS", fmt.Appendf(nil, "%x  vmcore\n", sha256.Sum256(dump(3))))
	got := tr.want(map[string][2]string{
		"good/vmcore": {"imported complete"}, "bad/vmcore": {"imported partial", "the MD5 of vmcore is not the one in MD5SUMS"},
		"both/vmcore": {"imported complete"},
	})
	for name, says := range map[string]string{
		"good/vmcore": "[the MD5 of vmcore is the one in vmcore.md5]", "bad/vmcore": "[]", "both/vmcore": "[the SHA-256 of vmcore is the one in SHA256SUMS]",
	} {
		if o := got[name]; fmt.Sprint(o.Matched) != says {
			t.Errorf("%s: %v, want %s", name, o.Matched, says)
		}
	}
}
