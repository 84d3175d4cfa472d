package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	cloudflare "github.com/cloudflare/ipvs"
	"github.com/cloudflare/ipvs/netmask"
	moby "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

const (
	services     = 1000
	destinations = 10 // of each
	objects      = services * (1 + destinations)
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// table is what is loaded and read; address makes addresses of three numbers.
func table(address func(net, high, low byte) netip.Addr) []ipvs.Service {
	list := make([]ipvs.Service, services)
	for i := range list {
		at := func(net int) netip.AddrPort {
			return netip.AddrPortFrom(address(byte(net), byte(i>>8), byte(i)), 80) // ipvsadm knows no other port with direct routing
		}
		s := ipvs.Service{Key: ipvs.ServiceAt(ipvs.TCP, at(9)), Scheduler: "rr"}
		for j := range destinations {
			s.Destinations = append(s.Destinations, ipvs.Destination{Addr: at(10 + j), Forward: ipvs.DRoute, Weight: 1})
		}
		list[i] = s
	}
	return list
}

// dial returns this project's client.
func dial(b *testing.B) *kernel.Client {
	b.Helper()
	c, err := kernel.Dial()
	must(b, err)
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// TestMain says which kernel the figures are of, in a line that benchstat reads.
func TestMain(m *testing.M) {
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		fmt.Printf("kernel: Linux %s\n", unix.ByteSliceToString(name.Release[:]))
	}
	os.Exit(m.Run())
}

func nothing() error { return nil }

// measure runs work b.N times, each between prepare and check, and limit on the same table
// right before and after: what else a machine does, and that it becomes warm, strikes
// both, so that x-raw, their ratio, is worth something on any.
func measure(b *testing.B, prepare, limit, work, check func() error) {
	b.ReportAllocs()
	var limits time.Duration
	compare := func() {
		must(b, prepare())
		start := time.Now()
		must(b, limit())
		limits += time.Since(start) / 2
	}
	for b.Loop() {
		b.StopTimer()
		compare()
		must(b, prepare())
		b.StartTimer()
		must(b, work())
		b.StopTimer()
		must(b, check())
		compare()
		b.StartTimer()
	}
	b.ReportMetric(objects*float64(b.N)/b.Elapsed().Seconds(), "objects/s")
	b.ReportMetric(b.Elapsed().Seconds()/limits.Seconds(), "x-raw")
}

// inFamilies runs bench with a table of each address family.
func inFamilies(b *testing.B, bench func(b *testing.B, list []ipvs.Service)) {
	b.Run("family=ipv4", func(b *testing.B) {
		bench(b, table(func(net, high, low byte) netip.Addr { return netip.AddrFrom4([4]byte{10, net, high, low}) }))
	})
	b.Run("family=ipv6", func(b *testing.B) {
		bench(b, table(func(net, high, low byte) netip.Addr {
			return netip.AddrFrom16([16]byte{0: 0xfd, 13: net, 14: high, 15: low})
		}))
	})
}

// BenchmarkLoad fills an empty table.
func BenchmarkLoad(b *testing.B) { inFamilies(b, benchmarkLoad) }

func benchmarkLoad(b *testing.B, list []ipvs.Service) {
	ways := []struct {
		by   string
		load func(b *testing.B) func() error
	}{
		{"raw", loadRaw(list)},
		{"ipvs-ha", func(b *testing.B) func() error {
			changes := ipvs.Diff(ipvs.Table{}, ipvs.TableOf(list...))
			c := dial(b)
			return func() error { return errors.Join(c.Apply(b.Context(), changes)...) }
		}},
		{"moby", loadMoby(list)},
		{"cloudflare", loadCloudflare(list)},
		{"ipvsadm", func(b *testing.B) func() error {
			var rules bytes.Buffer
			for _, s := range list {
				fmt.Fprintf(&rules, "-A -t %s -s rr\n", netip.AddrPortFrom(s.Key.Addr, s.Key.Port))
				for _, d := range s.Destinations {
					fmt.Fprintf(&rules, "-a -t %s -r %s -g -w 1\n", netip.AddrPortFrom(s.Key.Addr, s.Key.Port), d.Addr)
				}
			}
			return func() error { return ipvsadm(b.Context(), rules.Bytes(), "-R") }
		}},
	}
	must(b, dial(b).Flush(b.Context()))
	must(b, loadRaw(list)(b)()) // the first load after the kernel's start takes twice as long
	for _, way := range ways {
		b.Run("by="+way.by, func(b *testing.B) {
			c := dial(b)
			measure(b, func() error { return c.Flush(b.Context()) }, loadRaw(list)(b), way.load(b), func() error {
				have, err := c.Table(b.Context())
				if diff := ipvs.Diff(have, ipvs.TableOf(list...)); err == nil && len(diff) > 0 {
					err = fmt.Errorf("%d objects are not as they were to be loaded, the first: %s", len(diff), diff[0])
				}
				return err
			})
			must(b, c.Flush(b.Context()))
		})
	}
}

func loadRaw(list []ipvs.Service) func(b *testing.B) func() error {
	return func(b *testing.B) func() error {
		r := dialRaw(b)
		buffers := r.encode(list)
		return func() error { return r.load(buffers) }
	}
}

func loadMoby(list []ipvs.Service) func(b *testing.B) func() error {
	return func(b *testing.B) func() error {
		h := dialMoby(b)
		return func() error {
			for _, s := range list {
				theirs := mobyService(s)
				if err := h.NewService(theirs); err != nil {
					return err
				}
				for _, d := range s.Destinations {
					if err := h.NewDestination(theirs, &moby.Destination{
						Address: d.Addr.Addr().AsSlice(), Port: d.Addr.Port(), Weight: int(d.Weight),
						ConnectionFlags: uint32(d.Forward), AddressFamily: theirs.AddressFamily,
					}); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
}

func mobyService(s ipvs.Service) *moby.Service {
	mask := uint32(0xffffffff)
	if s.Key.Family == ipvs.IPv6 {
		mask = 128
	}
	return &moby.Service{
		Address: net.IP(s.Key.Addr.AsSlice()), Protocol: unix.IPPROTO_TCP, Port: s.Key.Port,
		SchedName: s.Scheduler, Netmask: mask, AddressFamily: uint16(s.Key.Family),
	}
}

func dialMoby(b *testing.B) *moby.Handle {
	b.Helper()
	h, err := moby.New("")
	must(b, err)
	b.Cleanup(h.Close)
	return h
}

func loadCloudflare(list []ipvs.Service) func(b *testing.B) func() error {
	return func(b *testing.B) func() error {
		c := dialCloudflare(b)
		return func() error {
			for _, s := range list {
				theirs := cloudflareService(s)
				if err := c.CreateService(theirs); err != nil {
					return err
				}
				for _, d := range s.Destinations {
					if err := c.CreateDestination(theirs, cloudflare.Destination{
						Address: d.Addr.Addr(), Port: d.Addr.Port(), Weight: uint32(d.Weight),
						FwdMethod: cloudflare.ForwardType(d.Forward), Family: theirs.Family,
					}); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
}

func cloudflareService(s ipvs.Service) cloudflare.Service {
	return cloudflare.Service{
		Address: s.Key.Addr, Netmask: netmask.MaskFrom(s.Key.Addr.BitLen(), s.Key.Addr.BitLen()), Scheduler: s.Scheduler,
		Port: s.Key.Port, Family: cloudflare.AddressFamily(s.Key.Family), Protocol: cloudflare.TCP,
	}
}

func dialCloudflare(b *testing.B) cloudflare.Client {
	b.Helper()
	c, err := cloudflare.New()
	must(b, err)
	b.Cleanup(func() { _ = c.(io.Closer).Close() })
	return c
}

func ipvsadm(ctx context.Context, input []byte, args ...string) error {
	cmd := exec.CommandContext(ctx, "ipvsadm", args...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("ipvsadm: %w: %s", err, out)
	}
	return nil
}

// BenchmarkDump reads all services and destinations.
func BenchmarkDump(b *testing.B) { inFamilies(b, benchmarkDump) }

func benchmarkDump(b *testing.B, list []ipvs.Service) {
	ways := []struct {
		by   string
		dump func(b *testing.B) func() (int, error) // counts objects
	}{
		{"raw", dumpRaw(list)},
		{"ipvs-ha", func(b *testing.B) func() (int, error) {
			c := dial(b)
			return func() (total int, err error) {
				t, err := c.Table(b.Context())
				for s := range t.Services() {
					total += 1 + len(s.Destinations)
				}
				return total, err
			}
		}},
		{"moby", func(b *testing.B) func() (int, error) {
			h := dialMoby(b)
			return func() (int, error) {
				found, err := h.GetServices()
				total := len(found)
				for _, s := range found {
					ds, err := h.GetDestinations(s)
					if err != nil {
						return 0, err
					}
					total += len(ds)
				}
				return total, err
			}
		}},
		{"cloudflare", func(b *testing.B) func() (int, error) {
			c := dialCloudflare(b)
			return func() (int, error) {
				found, err := c.Services()
				total := len(found)
				for _, s := range found {
					ds, err := c.Destinations(s.Service)
					if err != nil {
						return 0, err
					}
					total += len(ds)
				}
				return total, err
			}
		}},
		{"ipvsadm", func(b *testing.B) func() (int, error) {
			return func() (int, error) { return objects, ipvsadm(b.Context(), nil, "-Sn") }
		}},
	}
	c := dial(b)
	must(b, c.Flush(b.Context()))
	must(b, errors.Join(c.Apply(b.Context(), ipvs.Diff(ipvs.Table{}, ipvs.TableOf(list...)))...))
	defer func() { must(b, c.Flush(b.Context())) }()
	for _, way := range ways {
		b.Run("by="+way.by, func(b *testing.B) {
			measure(b, nothing, whole(dumpRaw(list)(b)), whole(way.dump(b)), nothing)
		})
	}
}

func dumpRaw(list []ipvs.Service) func(b *testing.B) func() (int, error) {
	return func(b *testing.B) func() (int, error) {
		r := dialRaw(b)
		var requests [][]byte
		requests = append(requests, r.request(nil, getService, unix.NLM_F_DUMP, nil))
		for _, s := range list {
			requests = append(requests, r.request(nil, getDest, unix.NLM_F_DUMP, attr(nil, 1, key(s.Key)...)))
		}
		return func() (total int, err error) {
			for _, request := range requests {
				n, err := r.dump(request)
				if err != nil {
					return 0, err
				}
				total += n
			}
			return total, nil
		}
	}
}

// whole makes it an error when dump has not read all objects.
func whole(dump func() (int, error)) func() error {
	return func() error {
		n, err := dump()
		if err == nil && n != objects {
			err = fmt.Errorf("%d objects, want %d", n, objects)
		}
		return err
	}
}
