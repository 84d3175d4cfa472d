package ipvs

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Seconds is a duration in the kernel's unit for timeouts, whole seconds. Its text
// form is a number with a unit, "15m" or "90s"; a bare number means seconds.
type Seconds uint32

// MaxTimeout is the longest timeout accepted, 31 days, ipvsadm's own limit. The
// kernel multiplies by its tick rate in 32 bits without a check, so values a few
// times larger would wrap.
const MaxTimeout Seconds = 31 * 24 * 3600

// MaxConnectionTimeout is the longest of the three connection timeouts, 24 days:
// the kernel refuses what exceeds 2^31 of its ticks, and some kernels have 1000 a
// second.
const MaxConnectionTimeout Seconds = 24 * 24 * 3600

// Duration returns s as a time.Duration.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// String returns s in the largest unit that divides it: "2h", "15m", "90s".
func (s Seconds) String() string {
	switch {
	case s != 0 && s%3600 == 0:
		return fmt.Sprintf("%dh", s/3600)
	case s != 0 && s%60 == 0:
		return fmt.Sprintf("%dm", s/60)
	}
	return fmt.Sprintf("%ds", uint32(s))
}

// ParseSeconds reads "15m", "1h30m", "90s" or "90".
func ParseSeconds(text string) (Seconds, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	switch {
	case err == nil:
		return Seconds(n), nil
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("duration %q is longer than %s", text, MaxTimeout)
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("duration %q: want a number with a unit, like 300s, 15m or 1h", text)
	case d < 0:
		return 0, fmt.Errorf("duration %q is negative", text)
	case d%time.Second != 0:
		return 0, fmt.Errorf("duration %q is not a whole number of seconds, the kernel's unit", text)
	case d/time.Second > 1<<32-1:
		return 0, fmt.Errorf("duration %q is longer than %s", text, MaxTimeout)
	}
	return Seconds(d / time.Second), nil
}

// MarshalText implements encoding.TextMarshaler.
func (s Seconds) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Seconds) UnmarshalText(b []byte) error {
	parsed, err := ParseSeconds(string(b))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// UnmarshalJSON reads the text form or a bare number of seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		text = string(b)
	}
	return s.UnmarshalText([]byte(text))
}

// check reports a timeout above limit.
func (s Seconds) check(limit Seconds) error {
	if s > limit {
		return fmt.Errorf("%s is longer than the limit of %s", s, limit)
	}
	return nil
}
