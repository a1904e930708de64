package lazyregexp

import (
	"slices"
	"sync"
	"testing"
)

// TestConcurrentFirstUse has many goroutines use an expression that nobody compiled.
func TestConcurrentFirstUse(t *testing.T) {
	t.Parallel()
	r := lazy(`^(a+)(b*)$`)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got := r.FindStringSubmatch("aab"); !slices.Equal(got, []string{"aab", "aa", "b"}) {
				t.Errorf("got %q", got)
			}
		})
	}
	all.Wait()
}

// TestWrongPatternFailsAtOnce holds what the packages that use New rely on: their tests find a wrong pattern, whether they use it or not.
func TestWrongPatternFailsAtOnce(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("New took a wrong pattern")
		}
	}()
	New(`(`)
}
