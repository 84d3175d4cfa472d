package reconcile

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
)

// TestMemoryIsThatOfTheTable, however many changes are made between two looks.
func TestMemoryIsThatOfTheTable(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, stop := runLoop(t, Config{Kernel: memkernel.New(), Interfaces: interfaces{"eth0": 2}, DataDir: dir, DriftInterval: 24 * time.Hour})
		l.Set(desired(t, 1))
		for i := range 1000 {
			l.Set(desired(t, uint64(i+2),
				fmt.Sprintf("tcp://10.9.0.1:80,10.8.0.%d,10.8.1.1*%d", i%200+1, i%7),
				fmt.Sprintf("tcp://10.9.%d.%d:80,10.8.0.1", i/200+1, i%200+1)))
			synctest.Wait()
		}
		stop()
		kept := 0
		for _, objects := range l.believed.made {
			kept += len(objects)
		}
		if kept > 5 {
			t.Errorf("after 1000 changes of a table of 5 objects, %d are kept", kept)
		}
	})
}
