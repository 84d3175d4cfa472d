package ipvs

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Flags are a virtual service's options, by their ipvsadm names. The three
// scheduler bits of the kernel mean different things to different schedulers, so
// each meaning has its own flag here; Service.Normalize chooses the proper name.
type Flags uint8

// The flags.
const (
	OnePacket  Flags = 1 << iota // each packet is scheduled on its own; UDP and fwmark only
	SHFallback                   // sh: try the next destination when the chosen one is unavailable
	SHPort                       // sh: the source port is part of the hash
	MHFallback                   // mh: as SHFallback
	MHPort                       // mh: as SHPort
	Flag1                        // scheduler flag 1, for other schedulers
	Flag2                        // scheduler flag 2
	Flag3                        // scheduler flag 3
)

// flagNames is in the order of the bits.
var flagNames = []string{"one-packet", "sh-fallback", "sh-port", "mh-fallback", "mh-port", "flag-1", "flag-2", "flag-3"}

// FlagNames returns every flag's name, in canonical order.
func FlagNames() []string { return slices.Clone(flagNames) }

// ParseFlag returns the flag called name.
func ParseFlag(name string) (Flags, error) {
	i := slices.Index(flagNames, name)
	if i < 0 {
		return 0, fmt.Errorf("unknown flag %q, want one of %s", name, strings.Join(flagNames, ", "))
	}
	return 1 << i, nil
}

// Names returns the names of the flags set in f, in canonical order.
func (f Flags) Names() []string {
	names := []string{}
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String returns the names in f, joined by commas.
func (f Flags) String() string { return strings.Join(f.Names(), ",") }

// schedulerBits holds, for the schedulers that give names of their own to the
// scheduler bits, those names for bits 1 and 2.
var schedulerBits = map[string][2]Flags{
	"sh": {SHFallback, SHPort},
	"mh": {MHFallback, MHPort},
}

// canonical renames the general flags to those of scheduler.
func (f Flags) canonical(scheduler string) Flags {
	own, ok := schedulerBits[scheduler]
	if !ok {
		return f
	}
	for i, general := range []Flags{Flag1, Flag2} {
		if f&general != 0 {
			f = f&^general | own[i]
		}
	}
	return f
}

// checkFor reports a flag that scheduler does not know.
func (f Flags) checkFor(scheduler string) error {
	for _, owner := range []string{"mh", "sh"} {
		own := schedulerBits[owner]
		if wrong := f & (own[0] | own[1]); wrong != 0 && scheduler != owner {
			return fmt.Errorf("%s needs scheduler %s, not %s", wrong, owner, scheduler)
		}
	}
	return nil
}

// MarshalJSON writes the list of names.
func (f Flags) MarshalJSON() ([]byte, error) { return json.Marshal(f.Names()) }

// UnmarshalJSON reads a list of names.
func (f *Flags) UnmarshalJSON(b []byte) error {
	var names []string
	if err := json.Unmarshal(b, &names); err != nil {
		return err
	}
	*f = 0
	for _, name := range names {
		flag, err := ParseFlag(name)
		if err != nil {
			return err
		}
		*f |= flag
	}
	return nil
}
