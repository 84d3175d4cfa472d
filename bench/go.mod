// The benchmarks against other libraries are a module of their own, so that those
// stay out of the program's.
module github.com/ipvs-ha/ipvs-ha/bench

go 1.26.0

replace github.com/ipvs-ha/ipvs-ha => ../

require (
	github.com/cloudflare/ipvs v0.12.0
	github.com/ipvs-ha/ipvs-ha v0.0.0-00010101000000-000000000000
	github.com/mdlayher/genetlink v1.4.0
	github.com/moby/ipvs v1.1.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/hashicorp/go-immutable-radix/v2 v2.1.0 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.0 // indirect
	github.com/mdlayher/netlink v1.11.2 // indirect
	github.com/mdlayher/socket v0.8.0 // indirect
	github.com/sirupsen/logrus v1.9.0 // indirect
	github.com/vishvananda/netlink v1.3.1 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
)
