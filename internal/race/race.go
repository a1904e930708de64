// Package race tells tests whether the race detector is on. It makes tests up to 30 times slower and allocates memory
// of its own.
package race

// Stride is the step of an exhaustive test in a single goroutine: n under the race detector, which finds nothing
// there, else 1.
func Stride(n int) int {
	if Enabled {
		return n
	}
	return 1
}
