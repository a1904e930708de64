// Package estimate computes how much memory a capture kernel needs, part by part: the smallest crashkernel= that works.
//
// The parts that do not come from a file were measured in guests with 1 to 16 GiB and Debian's kernels 5.10 to 7.3, whose
// capture kernels said what was left (package pid1). e2e boots guests with exactly the estimate, and its benchmark compares
// that with the least that works.
//
// It reads nothing and knows no machine. All sizes are in bytes. Its functions are pure.
package estimate
