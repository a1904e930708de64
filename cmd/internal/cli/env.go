package cli

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// envPrefix begins the name of every environment variable of both programs.
const envPrefix = "COREHAUL_"

// EnvName returns the environment variable of a flag: COREHAUL_RESUME_GRACE for --resume-grace. A flag name has the
// same variable in every command.
func EnvName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// LookupFunc is os.LookupEnv or a stand-in for it.
type LookupFunc func(name string) (string, bool)

// What the environment may set. A variable is set once, forgotten, and inherited by every command. So it may say
// where the dumps are and how to print results, and it may configure services. It may not say which dumps a command
// shows, changes or removes, nor how much of a dump is sent.
var (
	// envFlags take their value from the environment in every command that has them. --dry-run is among them because
	// it can only prevent a removal.
	envFlags = []string{"data", "ca", "socket", "json", "format", "compress", "dry-run", "symbols", "debug-dir", "debug-cache-size"}
	// envServices are the commands that the environment configures, each with its flags that the environment may not
	// set.
	envServices = map[string][]string{
		"corehaul serve":     {"check"},             // a service that inherits it would never start
		"corehaul-send send": {"level", "log-only"}, // would leave out pages
	}
)

// takesEnv reports whether the environment may set flag f of cmd.
func takesEnv(cmd *cobra.Command, f *pflag.Flag) bool {
	if f.Name == "help" || f.Name == "version" {
		return false
	}
	if not, ok := envServices[cmd.CommandPath()]; ok {
		return !slices.Contains(not, f.Name)
	}
	return slices.Contains(envFlags, f.Name)
}

// fromEnvironment sets the flags of cmd that the command line did not set, if the environment may and does. A value
// that does not parse is a usage error. It returns the variables of flags that the environment may not set.
func fromEnvironment(cmd *cobra.Command, lookup LookupFunc) (ignored []string, err error) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		value, ok := lookup(EnvName(f.Name))
		switch {
		case err != nil || !ok || value == "" || f.Changed || f.Name == "help" || f.Name == "version":
		case !takesEnv(cmd, f):
			if value != f.DefValue {
				ignored = append(ignored, f.Name)
			}
		default:
			if bad := cmd.Flags().Set(f.Name, value); bad != nil {
				err = Usagef("environment variable %s: %w", EnvName(f.Name), BadValue(bad))
			}
		}
	})
	return ignored, err
}

// applyEnvironment runs fromEnvironment for cmd and warns of ignored variables.
func applyEnvironment(cmd *cobra.Command) error {
	ignored, err := fromEnvironment(cmd, os.LookupEnv)
	for _, name := range ignored {
		Stdio{Err: cmd.ErrOrStderr()}.Warn(cmd.Root().Name(), "environment variable %s is ignored: '%s' takes --%s from the command line only",
			EnvName(name), cmd.CommandPath(), name)
	}
	return err
}

// Complete wraps a function that completes arguments for the shell: it first applies the environment, as for a
// command.
func Complete(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if _, err := fromEnvironment(cmd, os.LookupEnv); err != nil {
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
			return // commands of cobra ignore the environment
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !takesEnv(cmd, f) {
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
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		table = append(table, *byName[name])
	}
	return table
}

const envHelp = `A flag of this table takes its value from the environment if the command line does not
set it. No other flag does: which dumps a command shows, changes or removes, and how much of a
dump is sent, can only be set on the command line. The program warns of a variable that it ignores.`

// environmentTopic is "help environment": the table of all variables.
func environmentTopic(root *cobra.Command) *cobra.Command {
	topic := &cobra.Command{Use: "environment", Short: "The environment variables, and what they may set"}
	topic.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		out := cmd.OutOrStdout()
		_, _ = fmt.Fprintln(out, fitText(envHelp, Width(out)))
		_, _ = fmt.Fprintln(out)
		t := NewTable(out, "VARIABLE", "FLAG", "COMMANDS").Fold()
		for _, v := range EnvTable(root) {
			t.Row(v.Name, v.Flag, strings.Join(v.Commands, ", "))
		}
		_ = t.Flush()
	})
	return topic
}
