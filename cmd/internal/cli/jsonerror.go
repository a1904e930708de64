package cli

import (
	"errors"
	"io"
	"slices"

	"github.com/spf13/cobra"
)

// jsonError is an error of a command that was asked for JSON.
type jsonError struct{ err error }

func (e *jsonError) Error() string { return e.err.Error() }

// Unwrap returns the error itself.
func (e *jsonError) Unwrap() error { return e.err }

// ErrorDocument is what Report prints, in one line, of the error of a command that was asked for JSON.
type ErrorDocument struct {
	Type     string   `json:"type"` // "error"
	Error    string   `json:"error"`
	Hints    []string `json:"hints"`
	ExitCode ExitCode `json:"exit_code"`
}

// reportJSON writes err as one line of JSON. It writes nothing for an *ExitError without a cause: the result says it.
func reportJSON(w io.Writer, err error) {
	if exit, ok := errors.AsType[*ExitError](err); ok && exit.Err == nil {
		return
	}
	_ = JSONLine(w, ErrorDocument{Type: "error", Error: err.Error(), Hints: append([]string{}, Hints(err)...), ExitCode: CodeOf(err)})
}

// asksJSON reports whether the command line or the environment asks a command for JSON. A command line that is wrong may not have been read
// up to the flag.
func asksJSON(cmd *cobra.Command, args []string) bool {
	f := cmd.Flags().Lookup("json")
	return f != nil && (f.Value.String() == "true" || slices.Contains(args, "--json"))
}
