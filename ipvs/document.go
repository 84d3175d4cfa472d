package ipvs

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Document is the form in which people and programs exchange a whole table: the
// table file, the API's body, the command and the snapshot. It is not validated
// before Table is called.
type Document struct {
	Sync     *Sync     `json:"sync,omitempty"`
	Timeouts *Timeouts `json:"timeouts,omitempty"`
	VIPs     *VIPs     `json:"vips,omitempty"`
	Services []Service `json:"services"`
}

// Document returns t in document form. It shares memory with t and must not be
// written to.
func (t Table) Document() Document {
	doc := Document{Services: make([]Service, len(t.services))}
	if t.sync != (Sync{}) {
		doc.Sync = &t.sync
	}
	if t.timeouts != (Timeouts{}) {
		doc.Timeouts = &t.timeouts
	}
	if t.vips.Listed {
		doc.VIPs = &t.vips
	}
	for i, s := range t.services {
		doc.Services[i] = *s
	}
	return doc
}

// Table validates d and returns it as a table. The error joins one FieldError for
// each broken rule, with the field's path in the document as written, and matches
// ErrInvalid.
func (d Document) Table() (Table, error) {
	var f fields
	var t Table
	if d.Sync != nil {
		t.sync = *d.Sync
		f.addAll("sync", d.Sync.Validate())
	}
	if d.Timeouts != nil {
		t.timeouts = *d.Timeouts
		f.addAll("timeouts", d.Timeouts.Validate())
	}
	if d.VIPs != nil {
		t.vips = d.VIPs.normalize()
		f.addAll("", d.VIPs.Validate())
	}
	seen := make(map[ServiceKey]int, len(d.Services))
	for i, s := range d.Services {
		path := fmt.Sprintf("services[%d]", i)
		n := s.Normalize()
		settings := n.settings()
		f.addAll(path, settings.Validate())
		checkWritten(&f, path, &n, s.Destinations, t.sync)
		if first, twice := seen[n.Key]; twice {
			f.addf(path+".service", "duplicate: %s is also services[%d]", n.Key, first)
			continue
		}
		seen[n.Key] = i
		t.services = append(t.services, &n)
	}
	if err := f.err(); err != nil {
		return Table{}, err
	}
	slices.SortFunc(t.services, func(a, b *Service) int { return a.Key.Compare(b.Key) })
	if err := t.checkWhole(); err != nil {
		return Table{}, err
	}
	return t, nil
}

// checkWritten checks destinations in the order written, so that the paths
// lead people to the right line.
func checkWritten(f *fields, path string, s *Service, written []Destination, sync Sync) {
	seen := make(map[string]int, len(written))
	for i, dest := range written {
		at := fmt.Sprintf("%s.destinations[%d]", path, i)
		f.addAll(at, dest.validateIn(s))
		if !sync.Disabled && dest.Forward == Tunnel && dest.Addr.IsValid() && FamilyOf(dest.Addr.Addr()) != s.Key.Family {
			f.addf(at+".address", "%s in an %s service is %s", FamilyOf(dest.Addr.Addr()), s.Key.Family, mixedReason)
		}
		addr := dest.Addr.String()
		if first, twice := seen[addr]; twice {
			f.addf(at+".address", "duplicate: %s is also destinations[%d]", addr, first)
		}
		seen[addr] = i
	}
}

// MarshalJSON writes the document form.
func (t Table) MarshalJSON() ([]byte, error) { return json.Marshal(t.Document()) }

// UnmarshalJSON reads and validates the document form; unknown fields are errors.
func (t *Table) UnmarshalJSON(b []byte) error {
	var doc Document
	if err := strictJSON(b, &doc); err != nil {
		return err
	}
	table, err := doc.Table()
	if err != nil {
		return err
	}
	*t = table
	return nil
}
