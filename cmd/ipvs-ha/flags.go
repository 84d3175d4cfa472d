package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// flagError says of a flag's value what is wanted, and not which Go function refused it.
func flagError(cmd *cobra.Command, err error) error {
	if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 { // the flag is one of a mistyped subcommand
		if wrong := cmd.ValidateArgs(args); wrong != nil {
			return wrong
		}
	}
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return &usageError{err}
	}
	cause := errors.Unwrap(invalid)
	if invalid.GetFlag().Value.Type() == "bool" {
		cause = errors.New("want true or false")
	}
	return usagef("--%s %q: %w", invalid.GetFlag().Name, invalid.GetValue(), cause)
}

// number is the value of a flag that is a whole number from low to high. The flags of
// package pflag do not tell the limits, and read 010 as 8.
type number[T ~int | ~int32 | ~uint8 | ~uint16 | ~uint64] struct {
	to        *T
	low, high uint64
}

// numberFlag adds a flag; shorthand may be empty.
func numberFlag[T ~int | ~int32 | ~uint8 | ~uint16 | ~uint64](flags *pflag.FlagSet, to *T, name, shorthand string, standard T, low, high uint64, usage string) {
	*to = standard
	flags.VarP(&number[T]{to, low, high}, name, shorthand, usage)
}

func (n *number[T]) String() string { return fmt.Sprint(*n.to) }
func (n *number[T]) Type() string   { return "number" }

func (n *number[T]) Set(text string) error {
	v, err := parseNumber(text, n.low, n.high)
	if err != nil {
		return err
	}
	*n.to = T(v)
	return nil
}

func parseNumber(text string, low, high uint64) (uint64, error) {
	v, err := strconv.ParseUint(text, 10, 64)
	switch {
	case err != nil || v < low || v > high:
		return 0, fmt.Errorf("want a whole number from %d to %d", low, high)
	case text != strconv.FormatUint(v, 10):
		return 0, fmt.Errorf("could be read in two ways; write %d", v)
	}
	return v, nil
}

// patience is the value of --timeout. As in table files, a number is one of seconds.
type patience time.Duration

func (p *patience) String() string { return time.Duration(*p).String() }
func (p *patience) Type() string   { return "duration" }

func (p *patience) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, bare := strconv.ParseUint(text, 10, 32); bare == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d <= 0 || d > api.MaxTimeout {
		return fmt.Errorf("want a time above 0 and up to %s, like 30s or 2m", ipvs.Seconds(api.MaxTimeout/time.Second))
	}
	*p = patience(d)
	return nil
}
