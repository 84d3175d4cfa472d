package agent

import (
	"context"
	"errors"
	"os"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/fsm"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// kinds translate the errors of the parts into the API's, in this order.
var kinds = []struct {
	is   error
	kind api.Kind
}{
	{cluster.ErrUnknown, api.Unknown},
	{cluster.ErrNoLeader, api.NoLeader},
	{cluster.ErrTooLarge, api.TooLarge},
	{fsm.ErrTooLarge, api.TooLarge},
	{cluster.ErrNotFound, api.NotFound},
	{cluster.ErrRefused, api.Refused},
	{fsm.ErrConflict, api.Conflict},
	{fsm.ErrIDReused, api.IDReused},
	{fsm.ErrNotStaged, api.Refused},
	{ipvs.ErrInvalid, api.Invalid},
	{os.ErrExist, api.Exists},
	{os.ErrNotExist, api.NotFound},
	{context.DeadlineExceeded, api.Timeout},
	{context.Canceled, api.Timeout},
}

// problem is the border where errors become the API's; nil stays nil.
func problem(err error) error {
	if err == nil {
		return nil
	}
	for _, k := range kinds {
		if errors.Is(err, k.is) {
			p := api.NewProblem(k.kind, err.Error())
			p.Errors = fieldErrors(err)
			return p
		}
	}
	return err
}

// fieldErrors finds the broken rules in err.
func fieldErrors(err error) []api.FieldError {
	switch e := err.(type) {
	case *ipvs.FieldError:
		if e.Path == "" {
			return nil
		}
		return []api.FieldError{{Field: e.Path, Reason: e.Reason}}
	case interface{ Unwrap() []error }:
		var all []api.FieldError
		for _, one := range e.Unwrap() {
			all = append(all, fieldErrors(one)...)
		}
		return all
	case interface{ Unwrap() error }:
		return fieldErrors(e.Unwrap())
	}
	return nil
}
