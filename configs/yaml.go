package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	precise "go.yaml.in/yaml/v4"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// file is a YAML file (JSON is a part of YAML) on its way into values. It is read
// by hand and not by reflection, because an operator needs every mistake at once,
// each with its place and in the words of the file, not of Go; and because
// reflection reads 1.5 as 1, and 010 as 8.
type file struct {
	name  string
	lines []string
	root  *yaml.Node // nil: there is nothing in it
	errs  []*Error
}

// reader reads the value at path into a variable, or reports why not.
type reader func(f *file, path string, n *yaml.Node)

// key is one key of a mapping. The name may be a path, "cluster.port".
type key struct {
	name     string
	read     reader
	standard string // the default, as one writes it; only for documentation
	meaning  string // only for documentation
}

// parse reads the syntax of data.
func parse(name string, data []byte) (*file, error) {
	f := &file{name: name, lines: strings.Split(string(data), "\n")}
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		if err := decoder.Decode(&doc); err == io.EOF {
			return f, nil
		} else if err != nil {
			f.failSyntax(data, err)
			return nil, join(f.errs)
		}
		body := doc.Content[0]
		switch {
		case body.Tag == nullTag && body.Value == "": // nothing at all
		case f.root != nil:
			f.failAt(body, "", "a second document; one file holds one")
			return nil, join(f.errs)
		default:
			f.root = body
		}
	}
}

// failSyntax reports what the parser did not understand. The next version of the
// parser tells the place, and is not used for all because of JSON, of which it keeps
// every token.
func (f *file) failSyntax(data []byte, err error) {
	var docs []precise.Node
	var e *precise.LoadError
	if !errors.As(precise.Load(data, &docs, precise.WithAllDocuments()), &e) {
		f.failAt(nil, "", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	at, reason := e.Mark, e.Message
	if at.Line == 0 { // before there are lines: an octet that is no text
		before := data[:min(at.Index, len(data))]
		at.Line = bytes.Count(before, []byte("\n")) + 1
		at.Column = utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	}
	if e.ContextMsg != "" {
		reason += " " + e.ContextMsg
		switch end := bytes.Count(bytes.TrimSpace(data), []byte("\n")) + 1; {
		case at.Line > end: // what is missing is missed where it begins
			at = e.ContextMark
		case at.Line != e.ContextMark.Line:
			reason += fmt.Sprintf(" that begins in line %d", e.ContextMark.Line)
		}
	}
	if i := at.Line - 1; i >= 0 && i < len(f.lines) {
		line := []rune(f.lines[i])
		column := min(max(at.Column-1, 0), len(line))
		if bracketsBefore.MatchString(string(line[:column])) || bracketsAfter.MatchString(string(line[column:])) {
			reason += "; " + quotesHint
		}
	}
	f.failAt(&yaml.Node{Line: at.Line, Column: at.Column}, "", reason)
}

// An address in brackets, which YAML takes for a list unless there are quotes around
// it, just before or after what the parser did not understand.
var (
	bracketsBefore = regexp.MustCompile(`\[[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*\]$`)
	bracketsAfter  = regexp.MustCompile(`^\[[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*\]`)
)

const quotesHint = "put quotes around an [IPv6]:PORT"

// failAt reports a mistake at n, nil being nowhere.
func (f *file) failAt(n *yaml.Node, path, reason string) {
	e := &Error{File: f.name, Path: path, Reason: reason}
	if n != nil {
		e.Line, e.Column = n.Line, n.Column
		if i := e.Line - 1; i >= 0 && i < len(f.lines) {
			e.Source = strings.TrimSuffix(f.lines[i], "\r")
		}
	}
	f.errs = append(f.errs, e)
}

// failf reports a mistake in the value at path; when the file does not have that
// path, at the nearest part of it that is there.
func (f *file) failf(path, format string, args ...any) {
	at, _ := f.find(path)
	f.failAt(at, path, fmt.Sprintf(format, args...))
}

// has reports whether the file has path.
func (f *file) has(path string) bool {
	_, ok := f.find(path)
	return ok
}

// find returns what stands for path, or else for as much of it as the file has: the
// value, when it is a single one or in a list, and otherwise the key; nil for the
// whole file.
func (f *file) find(path string) (at *yaml.Node, ok bool) {
	n := f.root
	for part := range strings.FieldsFuncSeq(path, func(r rune) bool { return strings.ContainsRune(".[]", r) }) {
		if n == nil {
			return at, false
		}
		if i, err := strconv.Atoi(part); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
			n = resolve(n.Content[i])
			at = n
			continue
		}
		key, value := pair(n, part)
		if key == nil {
			return at, false
		}
		if n, at = resolve(value), key; n.Kind == yaml.ScalarNode && n.Tag != nullTag {
			at = n
		}
	}
	return at, true
}

// pair returns a key of a mapping and its value, nil when n has none of that name.
func pair(n *yaml.Node, name string) (key, value *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			if resolve(n.Content[i]).Value == name {
				return n.Content[i], n.Content[i+1]
			}
		}
	}
	return nil, nil
}

// resolve follows an alias. One that is a part of what it stands for does no harm:
// readers go no deeper than the keys that they know.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// plain reports whether n is of that kind and has no tag, which nobody needs here.
func plain(n *yaml.Node, kind yaml.Kind) bool {
	return n.Kind == kind && n.Style&yaml.TaggedStyle == 0 && n.Tag != nullTag
}

// The tags that the parser gives to values without one.
const (
	nullTag = "!!null"
	boolTag = "!!bool"
)

// keys reads n, a mapping whose keys are given.
func (f *file) keys(n *yaml.Node, path string, keys []key) {
	if !plain(n, yaml.MappingNode) {
		f.failAt(n, path, "want a mapping"+example(path)+", not "+kind(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		at, value := n.Content[i], resolve(n.Content[i+1])
		name := resolve(at).Value
		full := joinPath(path, name)
		if seen[name] {
			f.failAt(at, full, "the key is there twice")
			continue
		}
		seen[name] = true
		if i := slices.IndexFunc(keys, func(k key) bool { return k.name == name }); i >= 0 {
			if value.Tag == nullTag {
				f.failAt(at, full, "has no value; "+instead(full))
				continue
			}
			keys[i].read(f, full, value)
			continue
		}
		if inner := below(name, keys); len(inner) > 0 {
			before := len(f.errs)
			f.keys(value, full, inner)
			if name == "persistence" && len(f.errs) == before {
				if key, _ := pair(value, "timeout"); key == nil { // without it there is none, whatever else is said
					f.failAt(at, full, "needs timeout, such as "+examples[anywhere(full)])
				}
			}
			continue
		}
		f.failAt(at, full, "unknown key; want one of "+strings.Join(names(keys), ", "))
	}
}

// required says, of keys that must have a value, what that is.
var required = map[string]string{
	"services":                          `"services: []" means none`,
	"services[].service":                "want one like tcp://10.9.0.100:80",
	"services[].persistence.timeout":    "say how long a client stays with its destination, like 5m",
	"services[].destinations[].address": `want one like "10.9.0.21:80"`,
	"vips[].address":                    "want one like 10.9.0.100",
	"cluster.name":                      "all nodes of a cluster have the same",
	"cluster.address":                   "it is this host's own address, where the other nodes reach it",
}

// examples are values of the keys that have a mapping, or a list of them.
var examples = map[string]string{
	"cluster":                          "{name: lb, address: 10.9.0.11}",
	"vip":                              "{interface: eth0}",
	"vip.networks":                     "{inside: eth1}",
	"track[]":                          "{interface: eth1}",
	"reconcile":                        "{interval: 10s}",
	"timeouts":                         "{tcp: 15m}",
	"vips[]":                           "{address: 10.9.0.100}",
	"services[]":                       `{service: "tcp://10.9.0.100:80"}`,
	"services[].persistence":           "{timeout: 5m}",
	"services[].destinations[]":        `{address: "10.9.0.21:80"}`,
	"services[].destinations[].tunnel": "{type: gue, port: 6080}",
}

var index = regexp.MustCompile(`\[\d+\]`)

// anywhere is path without the numbers of elements, as required and examples have it.
func anywhere(path string) string { return index.ReplaceAllString(path, "[]") }

// instead says what to write instead of nothing.
func instead(path string) string {
	if what, ok := required[anywhere(path)]; ok {
		return what
	}
	return "leave the key out to have the default"
}

// example is a part of a sentence that shows a mapping for path, when there is one.
func example(path string) string {
	if e, ok := examples[anywhere(path)]; ok {
		return " such as " + e
	}
	return ""
}

// entries reads a mapping whose keys are the operator's own; item reads the value of
// one.
func entries(item func(name string) reader) reader {
	return func(f *file, path string, n *yaml.Node) {
		var keys []key
		for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
			name := resolve(n.Content[i]).Value
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
	return func(f *file, path string, n *yaml.Node) {
		if !plain(n, yaml.SequenceNode) {
			f.failAt(n, path, "want a list, not "+kind(n))
			return
		}
		for i, v := range n.Content {
			item(i)(f, path+"["+strconv.Itoa(i)+"]", resolve(v))
		}
	}
}

// mappings reads a list of mappings into to. Each is fresh at first, and must have
// the key that is named required.
func mappings[T any](to *[]T, fresh T, required string, keys func(*T) []key) reader {
	var v T
	own := keys(&v) // made once, because a table has very many mappings
	read := func(f *file, path string, n *yaml.Node) {
		v = fresh
		f.keys(n, path, own)
		if key, _ := pair(n, required); key == nil {
			f.failAt(n, joinPath(path, required), "is missing")
		}
		*to = append(*to, v)
	}
	return list(func(int) reader { return read })
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
