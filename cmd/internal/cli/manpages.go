//go:build manpages

package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// Execute writes a manual page for each command below root into the directory args[0]. It takes the place of the program's Execute
// when packages are made (go run -tags manpages ./cmd/corehaul DIR), so that neither program carries the library for that.
// The date in the pages is $SOURCE_DATE_EPOCH, seconds since 1970, so that two builds give the same pages.
func Execute(_ context.Context, _ Stdio, root *cobra.Command, args []string) error {
	if len(args) != 1 {
		return Usagef("built with the tag manpages, this program takes one argument, the directory for its manual pages")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return Usage(fmt.Errorf("SOURCE_DATE_EPOCH: %w", err))
	}
	prepare(root, new(bool))
	root.DisableAutoGenTag = true
	walk(root, describe)
	date := time.Unix(seconds, 0).UTC()
	return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Date: &date, Source: root.Name() + " " + Version(), Manual: "corehaul"}, args[0])
}

// describe makes the texts of a command ready for the library, which reads them as Markdown.
func describe(cmd *cobra.Command) {
	cmd.Hidden = cmd.Hidden || cmd.Name() == "completion" // packages have its scripts
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "."
	}
	cmd.Long, cmd.Short = markdown(cmd.Long), markdown(cmd.Short)
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = markdown(f.Usage) })
	if !cmd.HasParent() {
		cmd.Long += "\n\n# ENVIRONMENT\n\n" + markdown(envHelp) + "\n\n" + environment(cmd)
	}
	cmd.Long += "\n\n# EXIT STATUS\n\n" + markdown(exitHelp)
}

// environment lists the environment variables of a program.
func environment(root *cobra.Command) string {
	var b strings.Builder
	for _, v := range EnvTable(root) {
		fmt.Fprintf(&b, "**%s**\n\t%s of %s\n\n", markdown(v.Name), markdown(v.Flag), markdown(strings.Join(v.Commands, ", ")))
	}
	return b.String()
}

// special are the characters that mean something in Markdown.
var special = strings.NewReplacer("\\", "\\\\", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "<", "\\<", "#", "\\#")

// markdown returns plain text as Markdown. Indented lines stay as they are: they are tables or commands.
func markdown(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, " ") {
			lines[i] = "    " + line
		} else {
			lines[i] = special.Replace(line)
		}
	}
	return strings.Join(lines, "\n")
}
