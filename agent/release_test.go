package agent

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

func TestReleaseOfAWitness(t *testing.T) {
	forbidden := kernel.Request{Op: kernel.OpDaemons}.Refused(syscall.EPERM)
	for _, tc := range []struct {
		role      configs.Role
		err, want error
	}{
		{configs.Witness, forbidden, nil},
		{configs.Witness, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
		{configs.Director, forbidden, os.ErrPermission},
	} {
		if got := unlessWitness(tc.role, tc.err); !errors.Is(got, tc.want) {
			t.Errorf("%s, %v: %v, want %v", tc.role, tc.err, got, tc.want)
		}
	}
}
