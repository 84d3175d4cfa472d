package fsm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of what operators set for directors.
const (
	MaxDirectors      = 64 // that have settings
	MaxPreference     = 100
	DefaultPreference = 50
	maxNode           = 63 // bytes of a node's name
)

// Director is what operators have set for one director. It lives beside the table, so
// that a new table changes none of it, and is kept by name, whether or not there is a
// member of that name.
type Director struct {
	Node       string `json:"node"`
	Drained    bool   `json:"drained"`    // not to be the active one while another can
	Preference int    `json:"preference"` // 0 to MaxPreference: of equals the higher succeeds
}

// DirectorSetting changes what is set for one director: what is not nil.
type DirectorSetting struct {
	Node       string `json:"node"` // its name, 1 to 63 bytes of a-z, 0-9, '.' and '-'
	Drained    *bool  `json:"drained,omitempty"`
	Preference *int   `json:"preference,omitempty"` // 0 to MaxPreference
}

func (d DirectorSetting) check() error {
	var errs []error
	if d.Node == "" || len(d.Node) > maxNode || strings.Trim(d.Node, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		errs = append(errs, fmt.Errorf("node %q: must have 1 to %d of a-z, 0-9, '.' and '-'", d.Node, maxNode))
	}
	if d.Preference != nil && (*d.Preference < 0 || *d.Preference > MaxPreference) {
		errs = append(errs, fmt.Errorf("preference %d of node %s: must be 0 to %d", *d.Preference, d.Node, MaxPreference))
	}
	if d.Drained == nil && d.Preference == nil {
		errs = append(errs, fmt.Errorf("node %s: nothing is set", d.Node))
	}
	return errors.Join(errs...)
}

// Director returns what is set for the director of that name.
func (s State) Director(node string) Director {
	i, found := slices.BinarySearchFunc(s.directors, node, byNode)
	if !found {
		return Director{Node: node, Preference: DefaultPreference}
	}
	return s.directors[i]
}

func byNode(d Director, node string) int { return cmp.Compare(d.Node, node) }

// set returns directors, sorted by name, with settings made. Those at their defaults
// are left out. What was given is not written to.
func set(directors []Director, settings []DirectorSetting) ([]Director, error) {
	directors = slices.Clone(directors)
	for _, setting := range settings {
		d := State{directors: directors}.Director(setting.Node)
		if setting.Drained != nil {
			d.Drained = *setting.Drained
		}
		if setting.Preference != nil {
			d.Preference = *setting.Preference
		}
		i, found := slices.BinarySearchFunc(directors, d.Node, byNode)
		if found {
			directors = slices.Delete(directors, i, i+1)
		}
		if d != (Director{Node: d.Node, Preference: DefaultPreference}) {
			directors = slices.Insert(directors, i, d)
		}
	}
	if len(directors) > MaxDirectors {
		return nil, fmt.Errorf("%d directors would have settings, the limit is %d: undrain those that are gone, and set their preference to %d", len(directors), MaxDirectors, DefaultPreference)
	}
	return directors, nil
}

// checkDirectors reports whether set could have made directors.
func checkDirectors(directors []Director) error {
	for i, d := range directors {
		if err := (DirectorSetting{Node: d.Node, Drained: &d.Drained, Preference: &d.Preference}).check(); err != nil {
			return err
		}
		if i > 0 && directors[i-1].Node >= d.Node {
			return fmt.Errorf("node %s: not in the order of names", d.Node)
		}
	}
	if len(directors) > MaxDirectors {
		return fmt.Errorf("%d directors, the limit is %d", len(directors), MaxDirectors)
	}
	return nil
}
