// Command source writes the memory of a made-up crashed machine as an ELF core: "source FILE HOST".
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
)

const (
	section     = 1   // the section of memory that has struct pages
	kernelPages = 600 // pages of the kernel's own in it
	userPages   = 300 // pages of processes behind them
	noisyEvery  = 40  // one page of so many does not compress
	zeroEvery   = 7   // one page of so many is zero
	text        = "a page of a made-up machine; "
)

func main() {
	m := kerneltest.NewX86(4)
	mm := m.AddMemmap(kerneltest.Types61, 8)
	m.Strings["PAGESIZE"] = "4096"
	m.Strings["CRASHTIME"] = "170000000" + os.Args[2][len(os.Args[2])-1:] // which also makes the ids of the dumps differ
	mm.AddSection(section)
	noise := rand.New(rand.NewPCG(1, 2))
	for i := range kernelPages + userPages {
		pfn := mem.PFN(section*kerneltest.PagesPerSection + i)
		if i >= kernelPages {
			mm.Set(pfn, kerneltest.Page{Flags: kerneltest.FlagLRU | kerneltest.FlagSwapbacked, Mapping: 0xffff888000000000 | kerneltest.MappingAnon, Type: 1})
		}
		m.Write(pfn.Addr(12), page(i, noise))
	}
	m.SetUtsname(m.Image(0x3000), 0, uts.Name{
		Sysname: "Linux", Nodename: os.Args[2], Release: "6.1.0-0-test", Version: "#1 SMP", Machine: "x86_64", Domainname: "(none)",
	})
	m.Offsets["uts_namespace.name"] = 0
	r := kerneltest.NewRing(6, 12)
	r.Add(1000000, "Linux version 6.1.0-0-test")
	r.Add(2000000, "Kernel panic - not syncing: "+os.Args[2])
	m.InstallRing(r.RingImage)
	var b bytes.Buffer
	if err := m.WriteCore(&b); err != nil {
		panic(err)
	}
	if err := os.WriteFile(os.Args[1], b.Bytes(), 0o600); err != nil {
		panic(err)
	}
}

func page(i int, noise *rand.Rand) []byte {
	b := make([]byte, kerneltest.PageSize)
	switch {
	case i%zeroEvery == 0:
	case i%noisyEvery == 1:
		for at := 0; at < len(b); at += 8 {
			binary.LittleEndian.PutUint64(b[at:], noise.Uint64())
		}
	default:
		copy(b, fmt.Sprint(i, " ", strings.Repeat(text, len(b)/len(text))))
	}
	return b
}
