package configs

import (
	"encoding"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// file is a YAML file (JSON is a part of YAML) on its way into values. It is read
// by hand and not by reflection, because an operator needs every mistake at once,
// each with its place and in the words of the file, not of Go; and because
// reflection reads 1.5 as 1, and 010 as 8.
type file struct {
	name    string
	lines   []string
	root    ast.Node
	anchors map[string]ast.Node
	places  map[string]*token.Token // of each path: its single value, or its key, or its place in a list
	errs    []*Error
}

// reader reads the value at path into a variable, or reports why not.
type reader func(f *file, path string, n ast.Node)

// key is one key of a mapping. The name may be a path, "cluster.port".
type key struct {
	name     string
	read     reader
	standard string // the default, as one writes it; only for documentation
	meaning  string // only for documentation
}

// parse reads the syntax of data.
func parse(name string, data []byte) (*file, error) {
	f := &file{
		name:    name,
		lines:   strings.Split(string(data), "\n"),
		anchors: map[string]ast.Node{},
		places:  map[string]*token.Token{},
	}
	parsed, err := parser.ParseBytes(data, 0)
	if err != nil {
		var positioned yaml.Error
		if errors.As(err, &positioned) {
			f.failAt(positioned.GetToken(), "", positioned.GetMessage())
		} else {
			f.failAt(nil, "", err.Error())
		}
		return nil, join(f.errs)
	}
	for _, doc := range parsed.Docs {
		switch {
		case doc.Body == nil:
		case f.root != nil:
			f.failAt(doc.Body.GetToken(), "", "a second document; one file holds one")
			return nil, join(f.errs)
		default:
			f.root = doc.Body
		}
	}
	return f, nil
}

func (f *file) failAt(t *token.Token, path, reason string) {
	e := &Error{File: f.name, Path: path, Reason: reason}
	if t != nil && t.Position != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
		if i := e.Line - 1; i >= 0 && i < len(f.lines) {
			e.Source = strings.TrimSuffix(f.lines[i], "\r")
		}
	}
	f.errs = append(f.errs, e)
}

// failf reports a mistake in the value at path; when the file does not have that
// path, at the nearest part of it that is there.
func (f *file) failf(path, format string, args ...any) {
	at := path
	for at != "" && f.places[at] == nil {
		at = at[:max(0, strings.LastIndexAny(at, ".["))]
	}
	f.failAt(f.places[at], path, fmt.Sprintf(format, args...))
}

// resolve follows anchors and aliases.
func (f *file) resolve(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.AnchorNode:
		f.anchors[n.Name.GetToken().Value] = n.Value
		return f.resolve(n.Value)
	case *ast.AliasNode:
		// An anchor is known only once its value has been read, so that an alias
		// cannot be a part of itself.
		if target := f.anchors[n.Value.GetToken().Value]; target != nil {
			return target
		}
	}
	return n
}

// keys reads n, a mapping whose keys are given.
func (f *file) keys(n ast.Node, path string, keys []key) {
	pairs, ok := pairsOf(n)
	if !ok {
		f.failAt(n.GetToken(), path, "want a mapping, not "+kind(n))
		return
	}
	seen := map[string]bool{}
	for _, pair := range pairs {
		name := pair.Key.GetToken().Value
		at := pair.Key.GetToken()
		full := joinPath(path, name)
		if seen[name] {
			f.failAt(at, full, "the key is there twice")
			continue
		}
		seen[name] = true
		value := f.resolve(pair.Value)
		f.places[full] = at
		if i := slices.IndexFunc(keys, func(k key) bool { return k.name == name }); i >= 0 {
			if _, null := value.(*ast.NullNode); null {
				f.failAt(at, full, "has no value; leave the key out to have the default")
				continue
			}
			keys[i].read(f, full, value)
			continue
		}
		if inner := below(name, keys); len(inner) > 0 {
			f.keys(value, full, inner)
			continue
		}
		f.failAt(at, full, "unknown key; want one of "+strings.Join(names(keys), ", "))
	}
}

// pairsOf returns the keys and values of n, and false when it is no mapping.
func pairsOf(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// entries reads a mapping whose keys are the operator's own; item reads the value of
// one.
func entries(item func(name string) reader) reader {
	return func(f *file, path string, n ast.Node) {
		pairs, _ := pairsOf(n)
		var keys []key
		for _, pair := range pairs {
			name := pair.Key.GetToken().Value
			keys = append(keys, key{name: name, read: item(name)})
		}
		f.keys(n, path, keys)
	}
}

// below returns the keys under the mapping name, with names relative to it.
func below(name string, keys []key) []key {
	var inner []key
	for _, k := range keys {
		if rest, ok := strings.CutPrefix(k.name, name+"."); ok {
			k.name = rest
			inner = append(inner, k)
		}
	}
	return inner
}

// names returns the first part of each key's name.
func names(keys []key) []string {
	var all []string
	for _, k := range keys {
		first, _, _ := strings.Cut(k.name, ".")
		if !slices.Contains(all, first) {
			all = append(all, first)
		}
	}
	return all
}

// list reads a list; item reads its i-th element.
func list(item func(i int) reader) reader {
	return func(f *file, path string, n ast.Node) {
		sequence, ok := n.(*ast.SequenceNode)
		if !ok {
			f.failAt(n.GetToken(), path, "want a list, not "+kind(n))
			return
		}
		for i, v := range sequence.Values {
			at := fmt.Sprintf("%s[%d]", path, i)
			value := f.resolve(v)
			f.places[at] = value.GetToken()
			item(i)(f, at, value)
		}
	}
}

// text reads a string that check, which may be nil, accepts.
func text(to *string, check func(string) error) reader {
	return scalar(func(s string) error {
		*to = s
		if check == nil {
			return nil
		}
		return check(s)
	})
}

// unmarshal reads a value that has a text form of its own.
func unmarshal(to encoding.TextUnmarshaler) reader {
	return scalar(func(s string) error { return to.UnmarshalText([]byte(s)) })
}

// address reads an IP address that check, which may be nil, accepts.
func address(to *netip.Addr, check func(netip.Addr) error) reader {
	return scalar(func(s string) error {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("%q is not an IP address", s)
		}
		*to = a
		if check == nil {
			return nil
		}
		return check(a)
	})
}

// prefix reads ADDRESS or ADDRESS/LENGTH that check, which may be nil, accepts.
func prefix(to *netip.Prefix, check func(netip.Prefix) error) reader {
	return scalar(func(s string) (err error) {
		if *to, err = ipvs.ParsePrefix(s); err != nil || check == nil {
			return err
		}
		return check(*to)
	})
}

// addressPort reads ADDRESS:PORT.
func addressPort(to *netip.AddrPort) reader {
	return scalar(func(s string) error {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			return fmt.Errorf("%q is not ADDRESS:PORT or [IPv6]:PORT", s)
		}
		*to = a
		return nil
	})
}

// word reads one of a few words.
func word[T ~string](to *T, words ...T) reader {
	return scalar(func(s string) error {
		if !slices.Contains(words, T(s)) {
			return fmt.Errorf("%q is not one of %v", s, words)
		}
		*to = T(s)
		return nil
	})
}

// number reads a whole number from low to high.
func number[T ~int | ~int32 | ~uint8 | ~uint16](to *T, low, high int64) reader {
	return scalar(func(s string) error {
		v, err := strconv.ParseInt(s, 10, 64)
		switch {
		case err != nil && !errors.Is(err, strconv.ErrRange):
			return fmt.Errorf("%q is not a whole number", s)
		case err != nil || v < low || v > high:
			return fmt.Errorf("%s is not from %d to %d", s, low, high)
		case s != strconv.FormatInt(v, 10):
			return fmt.Errorf("%q could be read in two ways; write %d", s, v)
		}
		*to = T(v)
		return nil
	})
}

// duration reads a number with a unit, from low to high.
func duration(to *time.Duration, low, high time.Duration) reader {
	return scalar(func(s string) error {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return fmt.Errorf("%q is not a duration like 500ms, 10s or 5m", s)
		case d < low || d > high:
			return fmt.Errorf("%s is not from %s to %s", s, low, high)
		}
		*to = d
		return nil
	})
}

// boolean reads true or false.
func boolean(to *bool) reader {
	return func(f *file, path string, n ast.Node) {
		b, ok := n.(*ast.BoolNode)
		if !ok {
			f.failAt(n.GetToken(), path, "want true or false, not "+kind(n))
			return
		}
		*to = b.Value
	}
}

// negated reads true or false, and keeps the opposite.
func negated(to *ipvs.Negated) reader {
	return func(f *file, path string, n ast.Node) {
		value := !bool(*to)
		boolean(&value)(f, path, n)
		*to = ipvs.Negated(!value)
	}
}

// scalar reads the text of a single value. Numbers and such count by how they are
// written.
func scalar(set func(string) error) reader {
	return func(f *file, path string, n ast.Node) {
		var s string
		switch n := n.(type) {
		case *ast.StringNode:
			s = n.Value
		case *ast.LiteralNode:
			s = n.Value.Value
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			s = n.GetToken().Value
		default:
			f.failAt(n.GetToken(), path, "want a single value, not "+kind(n))
			return
		}
		f.places[path] = n.GetToken()
		if err := set(s); err != nil {
			f.failAt(n.GetToken(), path, err.Error())
		}
	}
}

// kind names what n is, for people.
func kind(n ast.Node) string {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		if n.IsFlowStyle {
			return "a list (put quotes around an [IPv6]:PORT)"
		}
		return "a list"
	case *ast.AliasNode:
		return "an alias of something unknown here"
	}
	return fmt.Sprintf("%q", n.GetToken().Value)
}

// addFieldErrors reports the rules that a document breaks at their places.
func (f *file) addFieldErrors(prefix string, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			f.addFieldErrors(prefix, e)
		}
		return
	}
	var field *ipvs.FieldError
	switch {
	case err == nil:
	case errors.As(err, &field):
		f.failf(joinPath(prefix, field.Path), "%s", field.Reason)
	default:
		f.failf(prefix, "%s", err)
	}
}

func joinPath(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "." + b
}
