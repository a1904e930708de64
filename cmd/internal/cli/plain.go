package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// plain says in words for people what is wrong with the flags of a command line. cobra's own texts name types and functions
// of Go.
func plain(err error) error {
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return fmt.Errorf("%s needs a value", flagName(missing.GetFlag()))
	}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return fmt.Errorf("%s: %w", flagName(bad.GetFlag()), BadValue(err))
	}
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if short := unknown.GetSpecifiedShortnames(); short != "" {
			return fmt.Errorf("unknown flag -%s", unknown.GetSpecifiedName())
		}
		return fmt.Errorf("unknown flag --%s", unknown.GetSpecifiedName())
	}
	return err
}

// BadValue says why a flag does not take a value, without the name of the flag. err is that of pflag.FlagSet.Set.
func BadValue(err error) error {
	bad, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	if want := wanted(bad.GetFlag().Value.Type()); want != "" {
		return fmt.Errorf("%q is not %s", bad.GetValue(), want)
	}
	return bad.Unwrap()
}

// wanted describes the values of a type of flags whose own error has words of Go. It is empty for types whose error is plain.
func wanted(kind string) string {
	switch kind {
	case "int":
		return "a whole number"
	case "uint8":
		return "a whole number from 0 to 255"
	case "bool":
		return "true or false"
	case "": // slog.Level: pflag gives the types of texts no name
		return "a level of the log: debug, info, warn or error"
	}
	return ""
}

func flagName(f *pflag.Flag) string {
	if f.Shorthand != "" {
		return "-" + f.Shorthand + ", --" + f.Name
	}
	return "--" + f.Name
}

// argumentError says in words for people that a command has too many or too few arguments. err is that of cmd.Args.
func argumentError(cmd *cobra.Command, args []string, err error) error {
	if exit, ok := errors.AsType[*ExitError](err); ok {
		return exit
	}
	_, want, takes := strings.Cut(strings.ReplaceAll(cmd.Use, " [flags]", ""), " ")
	switch {
	case !takes:
		return Usagef("'%s' takes no argument, and %q is one", cmd.CommandPath(), args[0])
	case len(args) == 0:
		return Usagef("'%s %s' needs an argument", cmd.CommandPath(), want)
	}
	return Usagef("'%s %s' does not take %d arguments: %s", cmd.CommandPath(), want, len(args), strings.Join(args, " "))
}

// unknownCommand is the error for a word that names no command of cmd.
func unknownCommand(cmd *cobra.Command, word string) error {
	cmd.SuggestionsMinimumDistance = 2
	hint := fmt.Sprintf("'%s --help' lists the commands", cmd.CommandPath())
	var like []string
	for _, name := range cmd.SuggestionsFor(word) {
		like = append(like, fmt.Sprintf("'%s %s'", cmd.CommandPath(), name))
	}
	if len(like) > 0 {
		hint = "did you mean " + strings.Join(like, " or ") + "? " + hint
	}
	return WithHint(Usagef("unknown command %q for %q", word, cmd.CommandPath()), hint)
}

// helpFor is the command "help": that of cobra takes an unknown word for no mistake.
func helpFor(cmd *cobra.Command, args []string) error {
	of, rest, err := cmd.Root().Find(args)
	if err != nil {
		return Usage(err)
	}
	if len(rest) > 0 {
		return unknownCommand(of, rest[0])
	}
	of.SetContext(cmd.Context())
	of.InitDefaultHelpFlag()
	of.InitDefaultVersionFlag()
	return of.Help()
}
