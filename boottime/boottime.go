// Package boottime tells the time since this machine booted. It goes on while the
// machine is suspended and no step of the wall clock moves it, so that a promise
// given for a while ends after that while.
package boottime

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the time since boot: CLOCK_BOOTTIME. Whoever needs another clock in a
// test takes a func() time.Duration and gets this one by default.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(fmt.Sprintf("boottime: %v", err)) // every kernel since 2.6.39 has this clock
	}
	return time.Duration(t.Nano())
}
