package e2e_test

import (
	"syscall"
	"time"
)

// A fault is something that befalls the director that owns the VIP.
type fault struct {
	name string
	// strike begins it and returns what ends it.
	strike func(l *lab, owner *node) (heal func())
	lasts  time.Duration // from one to the other, at least
	moves  bool          // it lasts until another director owns the VIP
	stays  bool          // no other director may ever own it
	long   bool          // for the campaign only
	alive  bool          // the agent takes its addresses away itself, in time or not
	apart  bool          // so long that it has a lab of its own there, beside the others'
}

// faults are what may happen without a packet that two directors accept.
var faults = []fault{
	{name: "kill -9", strike: killed, moves: true},
	{name: "SIGSTOP for 0.1 s", strike: stopped, lasts: 100 * time.Millisecond},
	{name: "SIGSTOP for 0.3 s", strike: stopped, lasts: 300 * time.Millisecond, long: true},
	{name: "SIGSTOP for 0.5 s", strike: stopped, lasts: 500 * time.Millisecond},
	{name: "SIGSTOP for 1 s", strike: stopped, lasts: time.Second, moves: true, long: true},
	{name: "SIGSTOP for 3 s", strike: stopped, lasts: 3 * time.Second, moves: true},
	{name: "SIGSTOP for 10 s", strike: stopped, lasts: 10 * time.Second, moves: true, apart: true},
	{name: "SIGSTOP for 30 s", strike: stopped, lasts: 30 * time.Second, moves: true, apart: true},
	{name: "cut off from the others", strike: cutFromAll(true, true), moves: true},
	{name: "cannot hear the others", strike: cutFromAll(true, false), moves: true},
	{name: "cannot speak to the others", strike: cutFromAll(false, true), moves: true},
	{name: "cut off from one of the others", strike: cutFromOne(0), lasts: 1500 * time.Millisecond, stays: true},
	{name: "cut off from the other one", strike: cutFromOne(1), lasts: 1500 * time.Millisecond, stays: true},
	{name: "each hears one other only", strike: cutRing, lasts: 1500 * time.Millisecond},
	{name: "the disk hangs", strike: frozenDisk, moves: true},
	{name: "nftables is blocked", strike: blockedNFT},
	{name: "nftables is blocked, then mute", strike: blockedNFTAndMute, moves: true},
	{name: "rtnetlink is blocked", strike: blockedRTNL, lasts: time.Second, stays: true},
	{name: "cut off, rtnetlink is blocked", strike: both(cutFromAll(true, true), blockedRTNL), lasts: time.Second},
	{name: "the clock is set forward 1 h", strike: clockStep(time.Hour), lasts: time.Second, stays: true},
	{name: "the clock is set back 1 h", strike: clockStep(-time.Hour), lasts: time.Second, stays: true},
	{name: "its ruleset flushed, then cut off", strike: both(flushedOwner, cutFromAll(true, true)), moves: true},
	{name: "the others' flushed, then cut off", strike: both(flushedStandbys, cutFromAll(true, true)), moves: true},
}

// both strikes twice.
func both(first, second func(*lab, *node) func()) func(*lab, *node) func() {
	return func(l *lab, owner *node) func() {
		healFirst := first(l, owner)
		healSecond := second(l, owner)
		return func() { healSecond(); healFirst() }
	}
}

func killed(_ *lab, owner *node) func() {
	owner.kill(syscall.SIGKILL)
	return owner.start
}

func stopped(_ *lab, owner *node) func() {
	_ = owner.cmd.Process.Signal(syscall.SIGSTOP)
	return func() { _ = owner.cmd.Process.Signal(syscall.SIGCONT) }
}
