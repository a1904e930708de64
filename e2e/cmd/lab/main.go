// Command lab crashes virtual machines and asks the judges, for people.
// Tests use package e2e/lab instead.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/corehaul/corehaul/e2e/lab"
)

func main() {
	c, err := lab.CaptureELF(context.Background(), lab.Scenario{Kernel: os.Args[1], Kexec: os.Args[2]})
	fmt.Println(c, err)
}
