package ipvs

import (
	"encoding/json"
	"fmt"
	"net/netip"
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
	doc := t.Settings()
	doc.Services = make([]Service, 0, t.Len())
	for s := range t.Services() {
		doc.Services = append(doc.Services, *s)
	}
	return doc
}

// Settings returns t in document form without its services.
func (t Table) Settings() Document {
	var doc Document
	if t.sync != (Sync{}) {
		doc.Sync = &t.sync
	}
	if t.timeouts != (Timeouts{}) {
		doc.Timeouts = &t.timeouts
	}
	if t.vips.Listed {
		doc.VIPs = &t.vips
	}
	return doc
}

// Table validates d and returns it as a table. The error joins one FieldError for
// each broken rule, with the field's path in the document as written, and matches
// ErrInvalid.
func (d Document) Table() (Table, error) {
	var f fields
	var b Builder
	var sync Sync
	if d.Sync != nil {
		sync = *d.Sync
		f.addAll("sync", d.Sync.Validate())
	}
	if d.Timeouts != nil {
		f.addAll("timeouts", d.Timeouts.Validate())
	}
	if d.VIPs != nil {
		f.addAll("", d.VIPs.Validate())
	}
	if len(d.Services) > MaxServices {
		f.addf("services", "%d services, the limit is %d", len(d.Services), MaxServices)
		return Table{}, f.err()
	}
	seen := make(map[ServiceKey]int, len(d.Services))
	for i, s := range d.Services {
		n := s.Normalize()
		d.checkService(&f, i, &n, sync)
		if first, twice := seen[n.Key]; twice {
			f.addf(fmt.Sprintf("services[%d].service", i), "duplicate: %s is also services[%d]", n.Key, first)
			continue
		}
		seen[n.Key] = i
		b.Set(&n)
	}
	if err := f.err(); err != nil {
		return Table{}, err
	}
	t := b.Table()
	t.sync = sync
	if d.Timeouts != nil {
		t.timeouts = *d.Timeouts
	}
	if d.VIPs != nil {
		t.vips = d.VIPs.normalize()
	}
	if err := t.checkWhole(); err != nil {
		return Table{}, err
	}
	return t, nil
}

// checkService checks the i-th service, of which s is the canonical form. Paths are
// made for mistakes only; in a large table they cost more than all rules.
func (d Document) checkService(f *fields, i int, s *Service, sync Sync) {
	path := func() string { return fmt.Sprintf("services[%d]", i) }
	settings := s.settings()
	if err := settings.Validate(); err != nil {
		f.addAll(path(), err)
	}
	written := d.Services[i].Destinations
	if len(written) > MaxServiceDestinations {
		f.addf(path()+".destinations", "%d destinations, the limit for one service is %d", len(written), MaxServiceDestinations)
		return
	}
	// In the order written, so that the paths lead people to the right line.
	for j, dest := range written {
		at := func() string { return fmt.Sprintf("%s.destinations[%d]", path(), j) }
		if err := dest.validateIn(s); err != nil {
			f.addAll(at(), err)
		}
		if !sync.Disabled && dest.Forward == Tunnel && dest.Addr.IsValid() && FamilyOf(dest.Addr.Addr()) != s.Key.Family {
			f.addf(at()+".address", "%s in an %s service is %s", FamilyOf(dest.Addr.Addr()), s.Key.Family, mixedReason)
		}
	}
	for j := 1; j < len(s.Destinations); j++ {
		if s.Destinations[j].Addr == s.Destinations[j-1].Addr {
			addDuplicates(f, path(), written)
			break
		}
	}
}

// addDuplicates reports the destinations that are there before.
func addDuplicates(f *fields, path string, written []Destination) {
	seen := make(map[netip.AddrPort]int, len(written))
	for i, dest := range written {
		if first, twice := seen[dest.Addr]; twice {
			f.addf(fmt.Sprintf("%s.destinations[%d].address", path, i), "duplicate: %s is also destinations[%d]", dest.Addr, first)
		}
		seen[dest.Addr] = i
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
