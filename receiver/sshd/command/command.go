// Package command parses the command lines of stock kdump clients, scp and kdumpctl. It reads shell
// syntax and refuses everything that is not one of a dozen operations on files. Nothing is ever
// executed: the result is a list of operations.
//
//	[umask NNNN] [mkdir [-p] P] [dd [bs=N] of=P] [cat > P] [mv P P] [rmdir P] [mktemp -dqp P]
//	[df --output=avail P] [df -P P] [ls -l P] [echo WORDS > P] [scp -t|-f FLAGS P] [exit]
//
// joined by &&, ; and line ends. Words may be quoted. They must have no variables, substitutions, patterns, escapes or tildes.
// The input is hostile and bounded. All functions are safe for concurrent use.
package command

import (
	"errors"
	"fmt"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// MaxBytes is the longest command line: two paths and the text around them.
const MaxBytes = 8 << 10

// Script is a parsed command line: chains that run one after the other. Its status is that of the last operation that
// ran.
type Script []Chain

// Chain is a list of operations joined by &&: each runs if the one before succeeded.
type Chain []Op

// Op is one of the operations below.
type Op interface{ op() }

// The operations. Paths are as the client wrote them.
type (
	// Umask sets the permissions of new files. It has no effect here.
	Umask struct{}
	// Mkdir makes a directory. With Parents, it also makes its parents, and the directory may exist.
	Mkdir struct {
		Path    string
		Parents bool
	}
	// DD writes standard input to a file and reports how much, in blocks of BlockSize bytes.
	DD struct {
		Path      string
		BlockSize int64
	}
	// Cat writes standard input to a file.
	Cat struct{ Path string }
	// Move renames.
	Move struct{ From, To string }
	// Rmdir removes an empty directory.
	Rmdir struct{ Path string }
	// Mktemp makes a directory with a new name in Parent, and prints its path.
	Mktemp struct{ Parent string }
	// Free prints the free space, with POSIX as df -P, otherwise as df --output=avail.
	Free struct {
		Path  string
		POSIX bool
	}
	// List prints a file or directory as ls -l does.
	List struct{ Path string }
	// Echo writes a line to a file.
	Echo struct{ Text, Path string }
	// SCP is the remote end of the old scp protocol: it takes files (scp -t) or gives one (scp -f).
	SCP struct {
		Path      string
		Receive   bool
		Recursive bool // refused with an error of the protocol
		Times     bool // the sender sends times of files
		Directory bool // Path has to be a directory
	}
	// Exit ends the script with status 0.
	Exit struct{}
)

func (Umask) op()  {}
func (Mkdir) op()  {}
func (DD) op()     {}
func (Cat) op()    {}
func (Move) op()   {}
func (Rmdir) op()  {}
func (Mktemp) op() {}
func (Free) op()   {}
func (List) op()   {}
func (Echo) op()   {}
func (SCP) op()    {}
func (Exit) op()   {}

// ErrUnknown is matched by the errors of all other command lines. Their texts are for the client, in one line.
var ErrUnknown = errors.New("this server runs only the commands of kdump clients")

// Parse reads a command line. The error matches ErrUnknown, and the script is nil then.
func Parse(line string) (Script, error) {
	if len(line) > MaxBytes {
		return nil, unknown("%d bytes are too long", len(line))
	}
	if strings.ContainsRune(line, 0) {
		return nil, unknown("a zero byte")
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(line), "")
	if err != nil {
		return nil, unknown("this is not the syntax of a shell")
	}
	var script Script
	for _, stmt := range file.Stmts {
		chain, err := parseChain(stmt)
		if err != nil {
			return nil, err
		}
		script = append(script, chain)
	}
	if len(script) == 0 {
		return nil, unknown("no command")
	}
	return script, nil
}

func unknown(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrUnknown)
}

// maxChain bounds the operations of a chain, because the syntax tree nests them.
const maxChain = 64

// parseChain reads operations joined by &&, which the parser nests to the left.
func parseChain(stmt *syntax.Stmt) (chain Chain, err error) {
	var back []*syntax.Stmt
	for {
		if stmt.Negated || stmt.Background || stmt.Coprocess || stmt.Disown {
			return nil, unknown("only && and ; join commands")
		}
		both, ok := stmt.Cmd.(*syntax.BinaryCmd)
		if !ok {
			break
		}
		if both.Op != syntax.AndStmt || len(stmt.Redirs) > 0 || len(back) >= maxChain {
			return nil, unknown("only && and ; join commands")
		}
		back = append(back, both.Y)
		stmt = both.X
	}
	back = append(back, stmt)
	for i := len(back) - 1; i >= 0; i-- {
		op, err := parseOp(back[i])
		if err != nil {
			return nil, err
		}
		chain = append(chain, op)
	}
	return chain, nil
}

// parseOp reads one operation.
func parseOp(stmt *syntax.Stmt) (Op, error) {
	call, ok := stmt.Cmd.(*syntax.CallExpr)
	if !ok || stmt.Negated || stmt.Background || stmt.Coprocess || stmt.Disown || len(call.Assigns) > 0 || len(call.Args) == 0 {
		return nil, unknown("this is more than a command")
	}
	var words []string
	for _, w := range call.Args {
		text, err := word(w)
		if err != nil {
			return nil, err
		}
		words = append(words, text)
	}
	to, redirected, err := redirect(stmt.Redirs)
	if err != nil {
		return nil, err
	}
	name, args := words[0], words[1:]
	if redirected {
		return parseOutput(name, args, to)
	}
	parse := parsers[name]
	if parse == nil {
		return nil, unknown("no command %.40q", name)
	}
	op := parse(args)
	if op == nil {
		return nil, unknown("%s with these arguments", name)
	}
	return op, nil
}

// redirect returns the file of > FILE.
func redirect(list []*syntax.Redirect) (path string, ok bool, err error) {
	switch {
	case len(list) == 0:
		return "", false, nil
	case len(list) > 1 || list[0].Op != syntax.RdrOut || list[0].Hdoc != nil || list[0].N != nil:
		return "", false, unknown("only > FILE redirects")
	}
	path, err = word(list[0].Word)
	if err == nil && path == "" {
		err = unknown("a file without a name")
	}
	return path, true, err
}

// parseOutput reads a command whose output goes to a file.
func parseOutput(name string, args []string, to string) (Op, error) {
	switch {
	case name == "cat" && len(args) == 0:
		return Cat{Path: to}, nil
	case name == "echo" && (len(args) == 0 || !strings.HasPrefix(args[0], "-")):
		return Echo{Text: strings.Join(args, " "), Path: to}, nil
	}
	return nil, unknown("%.40q > FILE", name)
}

// word returns the text of a word that does not depend on the shell or its directory.
func word(w *syntax.Word) (string, error) {
	if w == nil {
		return "", unknown("a word is missing")
	}
	var text strings.Builder
	for i, part := range w.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			if strings.ContainsAny(p.Value, `\*?[$`) || i == 0 && strings.HasPrefix(p.Value, "~") {
				return "", unknown("a word with an escape, a pattern or a tilde")
			}
			text.WriteString(p.Value)
		case *syntax.SglQuoted:
			text.WriteString(p.Value)
		case *syntax.DblQuoted:
			inside, err := quoted(p)
			if err != nil {
				return "", err
			}
			text.WriteString(inside)
		default:
			return "", unknown("a word with a variable or a substitution")
		}
	}
	return text.String(), nil
}

// quoted returns the text between double quotes.
func quoted(q *syntax.DblQuoted) (string, error) {
	var text strings.Builder
	for _, part := range q.Parts {
		lit, ok := part.(*syntax.Lit)
		if !ok || strings.ContainsAny(lit.Value, `\$`) {
			return "", unknown("a word with a variable, a substitution or an escape")
		}
		text.WriteString(lit.Value)
	}
	return text.String(), nil
}
