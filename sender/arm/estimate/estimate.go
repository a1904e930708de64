package estimate

import "math"

// Input is what an estimate is made of.
type Input struct {
	// Kernel is what the capture kernel needs to start: kexec.Image.Memory. If that is 0, four times the size of its file is a
	// good guess.
	Kernel uint64
	// Unpacks says that Kernel has room for unpacking the kernel's file, which is free again afterwards; see kexec.Image.Unpacks.
	Unpacks bool
	// Packed is the size of the image, Unpacked that of its files, and Loaded what its modules take besides when they are
	// loaded; see initrd.Report.
	Packed, Unpacked, Loaded uint64
	// Cards is the number of network cards.
	Cards int
	// Memory is the memory of the machine that crashes.
	Memory uint64
}

// A Part is what one thing needs.
type Part struct {
	// Name is one of the words below. The list only grows.
	Name  string `json:"name"`
	Bytes uint64 `json:"bytes"`
	// What says what it is, for people.
	What string `json:"what"`
}

// Names of parts.
const (
	Kernel    = "kernel"
	Image     = "image"
	Unpacking = "unpacking"
	Modules   = "modules"
	Rings     = "rings"
	Sender    = "sender"
	Pages     = "pages"
	Base      = "base"
)

// An Estimate is a sum of parts.
type Estimate struct {
	// Size is what to reserve: the parts together, rounded up to a multiple of 4 MiB.
	Size  uint64 `json:"size"`
	Parts []Part `json:"parts"`
}

const (
	mib = 1 << 20
	// step is what Size is rounded up to. Kernels take any multiple of a page; round numbers are easier to compare.
	step = 4 * mib
	// ring is for the buffers of a card: with nr_cpus=1 a driver makes one or two queues, of up to 2048 buffers of 2 KiB.
	ring = 4 * mib
	// senderLeast is for a sender without its program, which lies in the image: 10 to 17 MiB were measured on 1 to 16 GiB.
	// Its plan grows with the memory of the machine, but the promise is 64 MiB with the program, which has 12.
	senderLeast = 20 * mib
	senderMost  = 52 * mib
	// senderPer is for how much memory of the machine the sender gets one byte more.
	senderPer = 4 << 10
	// pageFrame is the size of a page, and pageStruct of its struct page, on all kernels that distributions build.
	pageFrame, pageStruct = 4 << 10, 64
	// base is what the kernel allocates for itself, and the reserve that it gives to no program. started is what else it takes where
	// Kernel has no room that is free afterwards; that was 14 MiB of Debian's.
	base, started = 6 * mib, 14 * mib
	// early is what it has besides while it unpacks the image: what only its start needs is freed after that.
	early = 10 * mib
)

// Of returns the estimate. Sums that do not fit are cut to the largest number.
func Of(in Input) Estimate {
	parts := []Part{
		{Kernel, in.Kernel, "the kernel, as its file says"},
		{Image, in.Unpacked, "the image, unpacked"},
	}
	run := []Part{
		{Modules, in.Loaded, "modules, loaded"},
		{Rings, mul(uint64(max(in.Cards, 1)), ring), "buffers of network cards"},
		{Sender, min(senderMost, senderLeast+in.Memory/senderPer), "the sender"},
	}
	// The kernel unpacks the image, frees it, and only then runs it.
	if before, after := add(in.Packed, early), sum(run); before > after {
		run = append(run, Part{Unpacking, before - after, "more than all that, while the image is unpacked"})
	}
	own := uint64(base)
	if !in.Unpacks {
		own += started
	}
	parts = append(append(parts, run...), Part{Base, own, "what the kernel takes for itself, and its reserve"})
	// The kernel describes each page of its memory, those of the descriptions too.
	pages := sum(parts) / (pageFrame/pageStruct - 1)
	parts = append(parts, Part{Pages, pages, "descriptions of pages"})
	return Estimate{Size: roundUp(sum(parts)), Parts: parts}
}

func sum(parts []Part) uint64 {
	total := uint64(0)
	for _, p := range parts {
		total = add(total, p.Bytes)
	}
	return total
}

func add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func mul(a, b uint64) uint64 {
	if a > math.MaxUint64/b {
		return math.MaxUint64
	}
	return a * b
}

func roundUp(n uint64) uint64 { return add(n, step-1) / step * step }

// reserve has to be left at the least: between two looks at the memory there may be less, and another dump may need more.
const reserve = 16 * mib

// Seen returns the estimate of a dump: with so much memory reserved, least was the least free memory that its capture kernel
// saw. It is better than any other estimate for the same image, network and kernel.
func Seen(reserved, least uint64) Estimate {
	parts := []Part{
		{"used", reserved - min(reserved, least), "what the last dump used at most"},
		{"reserve", reserve, "what has to be left"},
	}
	return Estimate{Size: roundUp(sum(parts)), Parts: parts}
}
