package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// envPrefix begins the name of every environment variable of both programs.
const envPrefix = "COREHAUL_"

// EnvName returns the environment variable of a flag: --resume-grace takes its
// value from COREHAUL_RESUME_GRACE. A flag of the same name has the same variable
// in every command.
func EnvName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// LookupFunc is os.LookupEnv or a stand-in for it.
type LookupFunc func(name string) (string, bool)

// noEnvKey annotates flags that must not come from the environment.
const noEnvKey = "corehaul.noenv"

// NoEnv keeps a flag from being set by the environment, for flags like --yes, where
// a forgotten variable would do harm.
func NoEnv(flags *pflag.FlagSet, name string) {
	if err := flags.SetAnnotation(name, noEnvKey, []string{"yes"}); err != nil {
		panic(err) // a flag that does not exist: our own bug
	}
}

func takesEnv(f *pflag.Flag) bool {
	return f.Name != "help" && f.Name != "version" && len(f.Annotations[noEnvKey]) == 0
}

// fromEnvironment sets every flag of cmd that the command line left alone and whose
// variable is set and not empty. A value that does not parse is a usage error.
func fromEnvironment(cmd *cobra.Command, lookup LookupFunc) error {
	var first error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if first != nil || f.Changed || !takesEnv(f) {
			return
		}
		value, ok := lookup(EnvName(f.Name))
		if !ok || value == "" {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			first = Usagef("environment variable %s: %w", EnvName(f.Name), err)
		}
	})
	return first
}

// Complete wraps a function that completes arguments for the shell, which runs before
// any command does: the flags have what the environment says by then.
func Complete(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if err := fromEnvironment(cmd, os.LookupEnv); err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return f(cmd, args, prefix)
	}
}

// EnvVar is a line of the table of environment variables.
type EnvVar struct {
	Name     string   `json:"name"`
	Flag     string   `json:"flag"`
	Commands []string `json:"commands"`
}

// EnvTable lists the environment variables of all commands below root, by name.
func EnvTable(root *cobra.Command) []EnvVar {
	byName := map[string]*EnvVar{}
	walk(root, func(cmd *cobra.Command) {
		if cmd.HasParent() && cmd.Parent().Name() == "completion" {
			return // cobra's own, which do not look at the environment
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !takesEnv(f) {
				return
			}
			name := EnvName(f.Name)
			if byName[name] == nil {
				byName[name] = &EnvVar{Name: name, Flag: "--" + f.Name}
			}
			if path := cmd.CommandPath(); !slices.Contains(byName[name].Commands, path) {
				byName[name].Commands = append(byName[name].Commands, path)
			}
		})
	})
	table := make([]EnvVar, 0, len(byName))
	for _, v := range byName {
		table = append(table, *v)
	}
	slices.SortFunc(table, func(a, b EnvVar) int { return strings.Compare(a.Name, b.Name) })
	return table
}

// environmentTopic is "help environment": the one table of all variables.
func environmentTopic(root *cobra.Command) *cobra.Command {
	topic := &cobra.Command{Use: "environment", Short: "The environment variables, one for every flag"}
	topic.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		out := cmd.OutOrStdout()
		_, _ = fmt.Fprintln(out, "A flag that the command line does not set takes its value from the environment:")
		_, _ = fmt.Fprintln(out)
		t := NewTable(out, "VARIABLE", "FLAG", "COMMANDS")
		for _, v := range EnvTable(root) {
			t.Row(v.Name, v.Flag, strings.Join(v.Commands, ", "))
		}
		_ = t.Flush()
	})
	return topic
}
