// Package memkernel is an IPVS that exists in memory only. It has the methods of
// kernel.Client and behaves like Linux: what the kernel accepts, refuses, replaces
// or fills in, so does a [Kernel], with the same errors. Package kerneltest holds
// both to that.
//
// It forwards no packets, so that there are no connections and all counters are 0.
package memkernel
