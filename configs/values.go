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

	"go.yaml.in/yaml/v3"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

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
	return scalar(func(s string) (err error) {
		*to, err = ipvs.ParseAddrPort(s)
		return err
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
	return func(f *file, path string, n *yaml.Node) {
		if !plain(n, yaml.ScalarNode) || n.Tag != boolTag {
			f.failAt(n, path, "want true or false, not "+kind(n))
			return
		}
		*to = strings.EqualFold(n.Value, "true")
	}
}

// negated reads true or false, and keeps the opposite.
func negated(to *ipvs.Negated) reader {
	return func(f *file, path string, n *yaml.Node) {
		value := !bool(*to)
		boolean(&value)(f, path, n)
		*to = ipvs.Negated(!value)
	}
}

// scalar reads the text of a single value. Numbers and such count by how they are
// written.
func scalar(set func(string) error) reader {
	return func(f *file, path string, n *yaml.Node) {
		if !plain(n, yaml.ScalarNode) {
			f.failAt(n, path, "want a single value, not "+kind(n))
			return
		}
		if err := set(n.Value); err != nil {
			f.failAt(n, path, err.Error())
		}
	}
}

// kind names what n is, for people.
func kind(n *yaml.Node) string {
	switch {
	case n.Style&yaml.TaggedStyle != 0:
		return "a value with the tag " + n.Tag
	case n.Tag == nullTag:
		return "nothing"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode && n.Style&yaml.FlowStyle != 0:
		return "a list (" + quotesHint + ")"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}
