package vip

import (
	"errors"
	"fmt"
)

// Release shuts the fence and removes from this host the addresses that the record
// in dataDir says are ours, without a Keeper. No Keeper may run, or it puts them
// back. It is for the moment after a crash; nothing to do is no error.
func Release(dataDir string) error {
	p, err := connect(true, nil)
	if err != nil {
		return fmt.Errorf("release the VIPs: %w", err)
	}
	defer p.close()
	return release(dataDir, p)
}

func release(dataDir string, p parts) error {
	shut := p.fence.Shut()
	if isGone(shut) {
		shut = nil // no fence, no permit
	}
	claimed, warning, err := readRecord(dataDir)
	if err != nil {
		return errors.Join(shut, err)
	}
	h, err := p.network.Look()
	if err != nil {
		return errors.Join(shut, warning, err)
	}
	ours := makePlan(h, nil, false, rules{claimed: claimed}).remove
	changes := make([]change, len(ours))
	for i, a := range ours {
		changes[i] = change{kind: remove, prefix: a.Prefix, index: h.links[a.Interface].Index}
	}
	errs := []error{shut, warning}
	for i, err := range p.network.Apply(changes) {
		if err != nil && !isGone(err) {
			errs = append(errs, changeError(remove, ours[i], err))
		}
	}
	return errors.Join(errs...)
}
