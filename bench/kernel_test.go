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
	"slices"
	"sync"
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

// table is what is loaded and read.
func table() []ipvs.Service {
	list := make([]ipvs.Service, services)
	for i := range list {
		addr := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
		s := ipvs.Service{Key: ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(addr, 80)), Scheduler: "rr"}
		for j := range destinations {
			s.Destinations = append(s.Destinations, ipvs.Destination{
				Addr:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(10 + j), byte(i >> 8), byte(i)}), 80), // ipvsadm knows no other port with direct routing
				Forward: ipvs.DRoute, Weight: 1,
			})
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

// figures are the times of all iterations, for the ratios at the end.
var figures struct {
	sync.Mutex
	took map[string]map[string][]time.Duration // of what, by whom
	by   []string                              // in order
}

func note(what, by string, took time.Duration) {
	figures.Lock()
	defer figures.Unlock()
	if figures.took == nil {
		figures.took = map[string]map[string][]time.Duration{}
	}
	if figures.took[what] == nil {
		figures.took[what] = map[string][]time.Duration{}
	}
	if !slices.Contains(figures.by, by) {
		figures.by = append(figures.by, by)
	}
	figures.took[what][by] = append(figures.took[what][by], took)
}

// TestMain prints how the medians compare, behind the benchmarks' own lines.
func TestMain(m *testing.M) {
	status := m.Run()
	for what, took := range figures.took {
		for _, by := range figures.by {
			ours, theirs := median(took["ipvs-ha"]), median(took[by])
			if limit := median(took["raw"]); theirs > 0 && limit > 0 && ours > 0 {
				fmt.Printf("ratio: %s by %-10s %8.1f ms  %6.0f objects/s  %5.2f x raw  %5.2f x ipvs-ha\n", what, by,
					float64(theirs.Microseconds())/1000, objects/theirs.Seconds(),
					theirs.Seconds()/limit.Seconds(), theirs.Seconds()/ours.Seconds())
			}
		}
	}
	os.Exit(status)
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// measure runs work b.N times, each after prepare.
func measure(b *testing.B, what, by string, prepare, work func() error) {
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		must(b, prepare())
		b.StartTimer()
		start := time.Now()
		err := work()
		note(what, by, time.Since(start))
		must(b, err)
	}
	b.ReportMetric(objects*float64(b.N)/b.Elapsed().Seconds(), "objects/s")
}

// BenchmarkLoad fills an empty table.
func BenchmarkLoad(b *testing.B) {
	list := table()
	ways := []struct {
		by   string
		load func(b *testing.B) func() error
	}{
		{"raw", func(b *testing.B) func() error {
			r := dialRaw(b)
			buffers := r.encode(list)
			return func() error { return r.load(buffers) }
		}},
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
				fmt.Fprintf(&rules, "-A -t %s:%d -s rr\n", s.Key.Addr, s.Key.Port)
				for _, d := range s.Destinations {
					fmt.Fprintf(&rules, "-a -t %s:%d -r %s -g -w 1\n", s.Key.Addr, s.Key.Port, d.Addr)
				}
			}
			return func() error { return ipvsadm(b.Context(), rules.Bytes(), "-R") }
		}},
	}
	for _, way := range ways {
		b.Run("by="+way.by, func(b *testing.B) {
			c := dial(b)
			load := way.load(b)
			measure(b, "load", way.by, func() error { return c.Flush(b.Context()) }, load)
			have, err := c.Table(b.Context())
			must(b, err)
			if diff := ipvs.Diff(have, ipvs.TableOf(list...)); len(diff) > 0 {
				b.Errorf("%d objects are not as they were to be loaded, the first: %s", len(diff), diff[0])
			}
			must(b, c.Flush(b.Context()))
		})
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
						ConnectionFlags: uint32(d.Forward), AddressFamily: unix.AF_INET,
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
	return &moby.Service{
		Address: net.IP(s.Key.Addr.AsSlice()), Protocol: unix.IPPROTO_TCP, Port: s.Key.Port,
		SchedName: s.Scheduler, Netmask: 0xffffffff, AddressFamily: unix.AF_INET,
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
						FwdMethod: cloudflare.ForwardType(d.Forward), Family: cloudflare.INET,
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
		Address: s.Key.Addr, Netmask: netmask.MaskFrom4([4]byte{255, 255, 255, 255}), Scheduler: s.Scheduler,
		Port: s.Key.Port, Family: cloudflare.INET, Protocol: cloudflare.TCP,
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
func BenchmarkDump(b *testing.B) {
	list := table()
	ways := []struct {
		by   string
		dump func(b *testing.B) func() (int, error) // counts objects
	}{
		{"raw", func(b *testing.B) func() (int, error) {
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
		}},
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
			dump := way.dump(b)
			measure(b, "dump", way.by, func() error { return nil }, func() error {
				n, err := dump()
				if err == nil && n != objects {
					err = fmt.Errorf("%d objects, want %d", n, objects)
				}
				return err
			})
		})
	}
}
