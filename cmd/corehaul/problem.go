package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/receiver/sshd"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// maxProblems bounds the problems of one configuration.
const maxProblems = 100

// problem is something wrong with a configuration. Its text names the place too.
type problem struct {
	err  error
	file string // that is wrong: the configuration, or a file that it names; empty if none is
	line int    // in file; 0 if it is not known
	key  string // of the configuration; empty if none
}

func (p *problem) Error() string { return p.err.Error() }

// Unwrap returns the cause.
func (p *problem) Unwrap() error { return p.err }

// document is the problem as JSON.
func (p *problem) document() problemDocument {
	return problemDocument{Error: p.Error(), File: p.file, Line: p.line, Key: p.key, Hints: append([]string{}, cli.Hints(p.err)...)}
}

// problemDocument is a problem in the documents of "serve --check --json" and "reload --json".
type problemDocument struct {
	Error string   `json:"error"`
	Hints []string `json:"hints"`
	File  string   `json:"file,omitempty"`
	Line  int      `json:"line,omitempty"`
	Key   string   `json:"key,omitempty"`
}

// problems are those of one configuration. As an error, they have the text of the first one.
type problems []*problem

// err returns p as an error, nil if there is none.
func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

func (p problems) Error() string {
	text := p[0].Error()
	if n := len(p) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more, see 'corehaul serve --check')", n)
	}
	return text
}

// Hints are those of the first problem.
func (p problems) Hints() []string { return cli.Hints(p[0]) }

// Unwrap returns the problems.
func (p problems) Unwrap() []error {
	errs := make([]error, len(p))
	for i := range p {
		errs[i] = p[i]
	}
	return errs
}

// add adds a problem, unless there are too many.
func (p *problems) add(x *problem) {
	if len(*p) < maxProblems {
		*p = append(*p, x)
	}
}

// addErr adds a problem for each error that err joins, of one key.
func (p *problems) addErr(key string, err error) {
	for _, err := range split(err) {
		file, line := fileOf(err)
		p.add(&problem{err: err, file: file, line: line, key: key})
	}
}

// about reports whether a problem is about one of the keys, or about the file as a whole.
func (p problems) about(keys ...string) bool {
	return slices.ContainsFunc(p, func(x *problem) bool {
		key, _, _ := strings.Cut(x.key, ".")
		return key == "" || slices.Contains(keys, key)
	})
}

// split returns the errors that errors.Join has put together in err, or err itself.
func split(err error) (errs []error) {
	if err == nil {
		return nil
	}
	joined, ok := any(err).(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var texts []string
	for _, e := range joined.Unwrap() {
		errs, texts = append(errs, e), append(texts, e.Error())
	}
	if err.Error() != strings.Join(texts, "\n") { // fmt.Errorf with several causes of one error
		return []error{err}
	}
	return errs
}

// fileOf returns the file that an error is about, and the line in it.
func fileOf(err error) (path string, line int) {
	if at, ok := errors.AsType[*sshd.LineError](err); ok {
		return at.Path, at.Line
	}
	if at, ok := errors.AsType[*corehaultls.FileError](err); ok {
		return at.Path, 0
	}
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Path, 0
	}
	return "", 0
}
