package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/hostname"
	corehaultls "github.com/corehaul/corehaul/tls"
)

func newCA(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", GroupID: groupServer, Short: "Create the identities by which senders and receiver trust each other",
	}
	cmd.AddCommand(newCAInit(a), newCAIssue(a))
	return cmd
}

func newCAInit(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "init", Args: cobra.NoArgs, Short: "Create a CA and the receiver's key",
		RunE: func(*cobra.Command, []string) error {
			pin, err := corehaultls.InitCA(dir)
			if err != nil {
				return err
			}
			if a.json {
				return cli.JSON(a.stdio.Out, caMade{dir, pin.String()})
			}
			_, err = fmt.Fprintf(a.stdio.Out, "CA and receiver key in %s, pin %s\n", dir, pin)
			return err
		},
	}
	caDirFlag(cmd, &dir)
	a.jsonFlag(cmd)
	return cmd
}

func newCAIssue(a *app) *cobra.Command {
	var dir, out string
	cmd := &cobra.Command{
		Use: "issue HOST", Args: cobra.ExactArgs(1), Short: "Issue the identity of one sending host",
		Long: `Issue the identity of one sending host: its certificate and key, the CA, and the
pin of the receiver's key, all in one file. Whoever has the file is that host.`,
		RunE: func(_ *cobra.Command, args []string) error {
			host := args[0]
			if err := hostname.Check(host); err != nil {
				return cli.Usage(err)
			}
			if out == "" {
				return cli.WithHint(cli.Usagef("no file to write: --output is missing"), fmt.Sprintf("-o %s.pem", host))
			}
			identity, err := corehaultls.IssueHost(dir, host)
			if err != nil {
				return err
			}
			if err := corehaultls.WriteIdentity(out, identity); err != nil {
				return err
			}
			if a.json {
				return cli.JSON(a.stdio.Out, identityMade{host, out})
			}
			_, err = fmt.Fprintf(a.stdio.Out, "identity of %s in %s\n", host, out)
			return err
		},
	}
	caDirFlag(cmd, &dir)
	a.jsonFlag(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "`FILE` to write; it must not exist")
	cli.OldFlag(cmd.Flags(), "out", "output")
	return cmd
}

// defaultCA is the directory of the CA of a receiver with one configuration.
const defaultCA = "/etc/corehaul/ca"

// caDirFlag adds the flag for the directory of the CA, under its name in "serve" and its older name.
func caDirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "ca", defaultCA, "directory of the CA and the receiver's key")
	cli.OldFlag(cmd.Flags(), "dir", "ca")
}
