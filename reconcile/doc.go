// Package reconcile makes one kernel equal to what is desired: its virtual service
// table, its connection timeouts and its sync daemons. Nothing else in the process
// writes to these.
//
// The Loop is level-triggered. It holds the newest Desired and compares; what it
// missed in between does not matter. After a change it applies only the difference
// between two desired tables. At the start, on a timer, on request and after a
// surprise it reads the whole kernel, compares, and repairs what drifted. IPVS has
// no change notification, so drift can only be found by reading. While it reads, which
// takes seconds when the table is large, it goes on to carry out roles and changes.
//
// Services that are not in the table and that this host never programmed for the
// cluster are foreign: reported and left alone, unless the loop is exclusive. What
// it did program it deletes once it is no longer in the table, also after a crash
// or a long absence; a record on disk says what that is.
//
// Stopping the loop leaves everything in the kernel as it is.
package reconcile
