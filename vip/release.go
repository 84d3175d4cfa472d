package vip

import (
	"errors"
	"fmt"
)

// Release shuts the fence, removes from this host the addresses that the record in
// dataDir says are ours, and then the fence, without a Keeper: whoever takes the VIPs
// by other means is not to be kept from them. When an address may be left, so is the
// fence, shut. No Keeper may run, or it puts all of it back. It is for the moment
// after a crash; nothing to do is no error.
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
	if isGone(shut) || isUnsupported(shut) {
		shut = nil // no fence, no permit
	}
	if err := removeOurs(dataDir, p.network); err != nil {
		return errors.Join(shut, fmt.Errorf("addresses may be left, so the fence stays: %w", err))
	}
	return errors.Join(shut, p.fence.Remove())
}

// removeOurs returns nil when no address of ours is left.
func removeOurs(dataDir string, n network) error {
	claimed, warning, err := readRecord(dataDir)
	if err != nil {
		return err
	}
	h, err := n.Look()
	if err != nil {
		return errors.Join(warning, err)
	}
	ours := makePlan(h, nil, false, rules{claimed: claimed}).remove
	changes := make([]change, len(ours))
	for i, a := range ours {
		changes[i] = change{kind: remove, prefix: a.Prefix, index: h.links[a.Interface].Index}
	}
	errs := []error{warning}
	for i, err := range n.Apply(changes) {
		if err != nil && !isGone(err) {
			errs = append(errs, changeError(remove, ours[i], err))
		}
	}
	return errors.Join(errs...)
}
