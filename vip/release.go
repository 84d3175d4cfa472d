package vip

import (
	"errors"
	"fmt"
	"os"
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
	claimed, warning, err := readRecord(dataDir)
	if err == nil {
		err = errors.Join(warning, removeOurs(claimed, p.network))
	}
	if err != nil {
		return errors.Join(shut, fmt.Errorf("addresses may be left, so the fence stays: %w", err))
	}
	err = p.fence.Remove()
	if len(claimed) == 0 && isForbidden(shut) && isForbidden(err) {
		return nil // whoever may not look at a fence has built none, and no address was behind it
	}
	return errors.Join(shut, err)
}

func isForbidden(err error) bool { return errors.Is(err, os.ErrPermission) }

// removeOurs returns nil when none of the claimed addresses is left that is ours.
func removeOurs(claimed map[Address]bool, n network) error {
	h, err := n.Look()
	if err != nil {
		return err
	}
	ours := makePlan(h, nil, false, rules{claimed: claimed}).remove
	changes := make([]change, len(ours))
	for i, a := range ours {
		changes[i] = change{kind: remove, prefix: a.Prefix, index: h.links[a.Interface].Index}
	}
	var errs []error
	for i, err := range n.Apply(changes) {
		if err != nil && !isGone(err) {
			errs = append(errs, changeError(remove, ours[i], err))
		}
	}
	return errors.Join(errs...)
}
