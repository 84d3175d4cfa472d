package configs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// maxErrors is how many errors of one file are reported.
const maxErrors = 20

// Error is one mistake in a file, with its place. It matches ipvs.ErrInvalid.
type Error struct {
	File   string
	Line   int    // from 1; 0 when the mistake has no place
	Column int    // from 1, in characters
	Path   string // like "services[2].destinations[0].weight"; empty for syntax
	Reason string
	Source string // the text of the line
}

// Error returns "file:line: path: reason", and the line with a mark below.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Reason)
	if e.Line > 0 {
		source, mark := excerpt(e.Source, e.Column)
		fmt.Fprintf(&b, "\n    %s\n    %*s", source, mark, "^")
	}
	return b.String()
}

// Is makes an Error match ipvs.ErrInvalid.
func (e *Error) Is(target error) bool { return target == ipvs.ErrInvalid }

// excerpt shortens a long line (JSON is often one line) around column, and returns
// the column in what it returns.
func excerpt(line string, column int) (string, int) {
	const width = 120
	text := []rune(strings.ReplaceAll(line, "\t", " "))
	if len(text) <= width {
		return string(text), column
	}
	start := min(max(0, column-width/2), len(text)-width)
	return string(text[start : start+width]), column - start
}

// join returns errs in the order of their places as one error, or nil.
func join(errs []*Error) error {
	slices.SortStableFunc(errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var all []error
	for i, e := range errs {
		if i == maxErrors {
			all = append(all, fmt.Errorf("%s: and %d more", e.File, len(errs)-maxErrors))
			break
		}
		all = append(all, e)
	}
	return errors.Join(all...)
}
