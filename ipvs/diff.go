package ipvs

// Diff returns the changes that turn have into want:
// have.Apply(Diff(have, want)...) equals want, and Diff(t, t) is empty.
//
// It adds before it deletes, in both families: deleting the last service of an
// address family unhooks IPVS from the kernel's packet path and resets live
// connections. It sets where it can, because deleting and adding again drops the
// packets of live connections in between. Turning sync off comes first and
// turning it on last, since the kernel refuses destinations of another family
// while a sync daemon runs.
func Diff(have, want Table) []Change {
	var first, adds, sets, deletes, last []Change
	if have.timeouts != want.timeouts {
		first = append(first, Change{Op: SetTimeouts, Timeouts: &want.timeouts})
	}
	if !have.vips.Equal(want.vips) {
		first = append(first, Change{Op: SetVIPs, VIPs: &want.vips})
	}
	if have.sync != want.sync {
		change := Change{Op: SetSync, Sync: &want.sync}
		if want.sync.Disabled {
			first = append(first, change)
		} else {
			last = append(last, change)
		}
	}
	for h, w := range Unshared(have, want) {
		switch {
		case h == nil:
			settings := w.settings()
			adds = append(adds, Change{Op: AddService, Key: settings.Key, Service: &settings})
			for _, d := range w.Destinations {
				adds = append(adds, Change{Op: AddDestination, Key: settings.Key, Destination: &d})
			}
		case w == nil:
			deletes = append(deletes, Change{Op: DeleteService, Key: h.Key})
		default:
			sets = append(sets, diffService(h, w)...)
		}
	}
	changes := append(first, adds...)
	changes = append(changes, sets...)
	changes = append(changes, deletes...)
	return append(changes, last...)
}

// diffService returns the changes between two services with one key.
func diffService(have, want *Service) []Change {
	var sets, deletes []Change
	if !have.sameSettings(want) {
		settings := want.settings()
		sets = append(sets, Change{Op: SetService, Key: want.Key, Service: &settings})
	}
	h, w := have.Destinations, want.Destinations
	for len(h) > 0 || len(w) > 0 {
		switch {
		case len(h) == 0 || len(w) > 0 && compareAddrPort(w[0].Addr, h[0].Addr) < 0:
			d := w[0]
			sets = append(sets, Change{Op: AddDestination, Key: want.Key, Destination: &d})
			w = w[1:]
		case len(w) == 0 || compareAddrPort(h[0].Addr, w[0].Addr) < 0:
			deletes = append(deletes, Change{Op: DeleteDestination, Key: want.Key, Address: h[0].Addr})
			h = h[1:]
		default:
			if h[0] != w[0] {
				d := w[0]
				sets = append(sets, Change{Op: SetDestination, Key: want.Key, Destination: &d})
			}
			h, w = h[1:], w[1:]
		}
	}
	return append(sets, deletes...)
}
