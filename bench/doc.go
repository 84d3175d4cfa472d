// Package bench compares package kernel with what others have: a bare netlink loop,
// which is the limit, moby/ipvs, cloudflare/ipvs and ipvsadm. Its benchmarks need a
// real kernel and an empty IPVS: run make bench, which compares with stored.txt.
package bench
