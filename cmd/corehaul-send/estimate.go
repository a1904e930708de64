package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/sender/arm"
	"github.com/corehaul/corehaul/sender/arm/estimate"
	"github.com/corehaul/corehaul/sender/arm/reservation"
)

// estimateDoc is the document of estimate --json.
type estimateDoc struct {
	estimate.Estimate
	// Word is for the command line of the system kernel.
	Word string `json:"word"`
	// Reserved is what the running kernel has reserved, in bytes.
	Reserved uint64 `json:"reserved"`
}

func newEstimate(stdio cli.Stdio) *cobra.Command {
	var o arm.Options
	var asJSON bool
	var least string
	cmd := &cobra.Command{
		Use: "estimate [flags]", Short: "Print the smallest crashkernel= that works on this machine",
		Long: `Packs the image as arm would, loads nothing, and adds up what the capture kernel needs:
kernel, unpacked image, modules, buffers of network cards, this program, and what the kernel
takes for itself and its pages. Cards of data centres and storage adapters may take more than
the estimate has for them. Near its end, each dump says what memory was left:

  corehaul-send: least free memory 106.4 MiB of 153.5 MiB

With that number in --least-free, the estimate is what that dump used and 16 MiB, if the
reservation is still the one of that dump.

With --json it prints one document: size (bytes), parts (name, bytes, what), word, reserved
(bytes).`,
		Example: "  corehaul-send estimate\n  corehaul-send estimate --least-free 106.4M",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := estimateHere(cmd.Context(), o, least)
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(stdio.Out, doc)
			}
			return showEstimate(stdio.Out, doc)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Config, "config", defaultConfig, "configuration `FILE` of the capture side")
	flags.StringVar(&o.Kernel, "kernel", "", "`FILE` of the capture kernel (default: the running kernel's)")
	flags.StringVar(&least, "least-free", "", "the least free memory that the last dump told, such as 106.4M `SIZE`")
	flags.BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// estimateHere returns the estimate for this machine. With least, it is that of the last dump.
func estimateHere(ctx context.Context, o arm.Options, least string) (*estimateDoc, error) {
	free, err := bytesize.Parse(least)
	if least != "" && err != nil {
		return nil, cli.Usagef("--least-free: %v", err)
	}
	state, err := reservation.Read("/")
	if err != nil {
		return nil, err
	}
	doc := &estimateDoc{Reserved: state.Size}
	switch {
	case least == "":
		doc.Estimate, err = estimatePlan(ctx, o)
	case free >= state.Size:
		err = cli.Usagef("--least-free %s: the running kernel has reserved %s, and a capture kernel takes some of that", least, bytesize.Format(state.Size))
	default:
		doc.Estimate = estimate.Seen(state.Size, free)
	}
	if err != nil {
		return nil, err
	}
	doc.Word = reservation.Word(doc.Size)
	return doc, nil
}

// estimatePlan packs the image and returns what its capture kernel needs.
func estimatePlan(ctx context.Context, o arm.Options) (estimate.Estimate, error) {
	self, err := os.Executable()
	if err != nil {
		return estimate.Estimate{}, fmt.Errorf("this program: %w", err)
	}
	o.Init = self
	p, err := arm.Prepare(ctx, o)
	if err != nil {
		return estimate.Estimate{}, err
	}
	defer p.Close()
	return estimate.Estimate{Size: p.Record.Needs, Parts: p.Record.Parts}, nil
}

func showEstimate(w io.Writer, doc *estimateDoc) error {
	if _, err := fmt.Fprintln(w, doc.Word); err != nil {
		return err
	}
	t := cli.NewTable(w)
	for _, p := range doc.Parts {
		t.Row("  "+p.Name, bytesize.Format(p.Bytes), p.What)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	enough := "enough"
	if doc.Reserved < doc.Size {
		enough = "too little"
	}
	_, err := fmt.Fprintf(w, "reserved now: %s, %s\n", bytesize.Format(doc.Reserved), enough)
	return err
}
