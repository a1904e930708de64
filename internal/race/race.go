// Package race tells tests whether the race detector watches them: it makes them up to 30 times slower
// and allocates memory of its own.
package race

// Stride is the step of a test that tries everything one by one in a single goroutine: 1, or n under the race
// detector, which has nothing to find there.
func Stride(n int) int {
	if Enabled {
		return n
	}
	return 1
}
