package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// CompleteFlag completes the values of a flag for the shell. It panics if cmd has no such flag.
func CompleteFlag(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}

// CompleteWords completes the values of a flag that takes one of some words.
func CompleteWords(cmd *cobra.Command, flag string, words ...string) {
	CompleteFlag(cmd, flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	})
}

// CompleteList completes the values of a flag that takes a list of words with commas.
func CompleteList(cmd *cobra.Command, flag string, words ...string) {
	CompleteFlag(cmd, flag, func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return ListWords(prefix, words), cobra.ShellCompDirectiveNoFileComp
	})
}

// ListWords returns what may stand where prefix does: the words that begin as its last item, behind the items before it.
func ListWords(prefix string, words []string) (out []string) {
	end := strings.LastIndexByte(prefix, ',') + 1
	for _, w := range words {
		if strings.HasPrefix(w, prefix[end:]) {
			out = append(out, prefix[:end]+w)
		}
	}
	return out
}
