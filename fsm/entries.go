package fsm

import (
	"encoding/json"
	"fmt"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// maxEnvelope bounds what a part has beside its services, in bytes.
const maxEnvelope = 1 << 10

// Entries returns c as log entries that are to be proposed in this order, each once
// the one before is known to be committed: one, or, for a new table that is too
// large for one, parts and a last entry that commits them. The error is a
// *Rejection.
func (c Command) Entries() ([][]byte, error) { return c.entries(MaxCommandSize) }

func (c Command) entries(limit int) ([][]byte, error) {
	if c.V == 0 {
		c.V = Version
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Replace == nil {
		entry, err := c.encode(limit)
		return [][]byte{entry}, err
	}
	parts, err := split(c.Replace.Services, limit-maxEnvelope)
	if err != nil {
		return nil, reject(Invalid, err)
	}
	if len(parts) == 1 {
		if entry, err := c.encode(limit); err == nil {
			return [][]byte{entry}, nil
		}
	}
	name, size := stageName{Parts: len(parts)}, 0
	var sum digest
	for _, p := range parts {
		sum = p.chain(sum)
	}
	name.Sum = sum.String()
	var entries [][]byte
	for i, p := range parts {
		p.stageName, p.Number = name, i
		entry, err := marshal(envelope{V: c.V, ID: c.ID, By: c.By, Part: p}, limit)
		if err != nil {
			return nil, err
		}
		size += len(entry)
		entries = append(entries, entry)
	}
	if len(parts) > maxParts || size > maxStaged {
		return nil, reject(Invalid, fmt.Errorf("%w: the new table has %d bytes in %d log entries, the limits are %d and %d", ErrTooLarge, size, len(parts), maxStaged, maxParts))
	}
	end, err := json.Marshal(commit{stageName: name, Sync: c.Replace.Sync, Timeouts: c.Replace.Timeouts, VIPs: c.Replace.VIPs})
	if err != nil {
		return nil, reject(Invalid, fmt.Errorf("encode the command: %w", err))
	}
	last, err := marshal(envelope{V: c.V, ID: c.ID, By: c.By, IfRevision: c.IfRevision, Commit: end}, limit)
	return append(entries, last), err
}

// split encodes services as parts of at most limit bytes; there is at least one.
func split(services []ipvs.Service, limit int) ([]*part, error) {
	p := packer{limit: limit}
	for _, s := range services {
		text, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", s.Key, err)
		}
		if len(text)+2 <= limit {
			p.add(text, false)
		} else if err := p.addLarge(s); err != nil {
			return nil, fmt.Errorf("encode %s: %w", s.Key, err)
		}
	}
	p.flush()
	return p.parts, nil
}

// packer fills parts.
type packer struct {
	limit     int
	parts     []*part
	text      []byte // of the services of the next part, without the end
	continues bool   // the next part does
}

// add puts the text of a service into the next part, or the one after it.
func (p *packer) add(text []byte, continues bool) {
	if continues || len(p.text)+len(text)+2 > p.limit {
		p.flush()
		p.continues = continues
	}
	separator := byte(',')
	if len(p.text) == 0 {
		separator = '['
	}
	p.text = append(append(p.text, separator), text...)
}

// addLarge puts the destinations of a service into several parts.
func (p *packer) addLarge(s ipvs.Service) error {
	rest := s.Destinations
	settings := s
	settings.Destinations = nil
	head, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	for first := true; first || len(rest) > 0; first = false {
		n, size := 0, len(head)+len(`,"destinations":[]`)+2
		for n < len(rest) {
			text, err := json.Marshal(rest[n])
			if err != nil {
				return err
			}
			if size += len(text) + 1; size > p.limit && n > 0 {
				break
			}
			n++
		}
		settings.Destinations, rest = rest[:n], rest[n:]
		text, err := json.Marshal(settings)
		if err != nil {
			return err
		}
		p.add(text, !first)
	}
	return nil
}

// flush ends the next part, unless it is empty and not the only one.
func (p *packer) flush() {
	if len(p.text) == 0 {
		if len(p.parts) > 0 {
			return
		}
		p.text = []byte{'['}
	}
	p.parts = append(p.parts, &part{Continues: p.continues, Services: append(p.text, ']')})
	p.text, p.continues = nil, false
}
