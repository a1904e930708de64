package clitest

import "testing"

func TestLeftOn(t *testing.T) {
	for written, want := range map[string]string{
		"":           "",
		"one\ntwo\n": "one\ntwo\n",
		"bar 1%\n\x1b[1A\x1b[Jbar 2%\n\x1b[1A\x1b[Jdone\n": "done\n",
		"head\nbar\n\x1b[1A\x1b[J":                         "head\n",
		"head\na\nb\n\x1b[2A\x1b[Jc\n":                     "head\nc\n",
		"a\n\x1b[9A\x1b[Jb":                                "b",
	} {
		if got := leftOn(written); got != want {
			t.Errorf("%q leaves %q, want %q", written, got, want)
		}
	}
}
