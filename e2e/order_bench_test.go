package e2e_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// swapLab are two directors without an agent, one of which a client's packets for the
// VIP go to, and a real server that echoes.
type swapLab struct {
	*lab
	client    string
	directors [2]*swapHost
	active    int

	mu    sync.Mutex
	conns []*swapConn
}

type swapHost struct {
	ns, mac string
	kernel  *kernel.Client
}

// A swapConn is one of the client's connections.
type swapConn struct {
	opened time.Time
	local  string // ip:port
	chatty bool   // it sends every 100 ms, else only once
	conn   net.Conn
	failed error
}

const (
	swapVIP  = "10.9.0.100"
	swapLife = 8 * time.Second // of a connection
)

func newSwapLab(t testing.TB) *swapLab {
	l := &swapLab{lab: newLab(t)}
	for i := range l.directors {
		h := &swapHost{ns: fmt.Sprintf("%sd%d", l.prefix, i+1)}
		l.host(h.ns, fmt.Sprintf("10.9.0.%d", 11+i))
		l.run("ip", "-n", h.ns, "addr", "add", swapVIP+"/32", "dev", "lo")
		h.mac = l.macOf(h.ns, "eth0").String()
		if err := inNamespace(h.ns, func() (err error) { h.kernel, err = kernel.Dial(); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.kernel.Close() })
		l.run("ip", "netns", "exec", h.ns, "ipvsadm", "-A", "-t", swapVIP+":80", "-s", "rr")
		l.run("ip", "netns", "exec", h.ns, "ipvsadm", "-a", "-t", swapVIP+":80", "-r", "10.9.0.21:80", "-g")
		l.directors[i] = h
	}
	server := l.prefix + "rs"
	l.host(server, "10.9.0.21")
	l.run("ip", "netns", "exec", server, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; ip addr add "+swapVIP+"/32 dev lo")
	if err := inNamespace(server, func() error { return l.echo(swapVIP + ":80") }); err != nil {
		t.Fatal(err)
	}
	l.client = l.prefix + "c1"
	l.host(l.client, "10.9.0.50")
	return l
}

// echo serves connections until the test ends.
func (l *swapLab) echo(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	l.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				b := make([]byte, 1)
				for {
					if _, err := conn.Read(b); err != nil {
						return
					}
					if _, err := conn.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	return nil
}

// point has the client's packets for the VIP go to a MAC address.
func (l *swapLab) point(mac string) {
	l.run("ip", "-n", l.client, "neigh", "replace", swapVIP, "dev", "eth0", "lladdr", mac, "nud", "permanent")
}

// generate opens connections until ctx is done and talks on each of them.
func (l *swapLab) generate(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	dialer := net.Dialer{Timeout: swapLife}
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		all.Go(func() {
			var conn net.Conn
			err := inNamespace(l.client, func() (err error) {
				conn, err = dialer.Dial("tcp4", swapVIP+":80")
				return err
			})
			if err != nil {
				return // opened in the gap: nothing to keep
			}
			defer conn.Close()
			c := &swapConn{opened: time.Now(), local: conn.LocalAddr().String(), chatty: i%4 == 0, conn: conn}
			l.mu.Lock()
			l.conns = append(l.conns, c)
			l.mu.Unlock()
			end := c.opened.Add(swapLife)
			for b := make([]byte, 1); ; {
				_ = conn.SetDeadline(time.Now().Add(swapLife))
				_, err := conn.Write(b)
				if err == nil {
					_, err = conn.Read(b)
				}
				if err != nil {
					l.mu.Lock()
					c.failed = err
					l.mu.Unlock()
					return
				}
				wait := 100 * time.Millisecond
				if !c.chatty {
					wait = time.Until(end)
				}
				time.Sleep(wait)
				if !time.Now().Before(end) {
					return
				}
			}
		})
	}
}

// entries are the connections that a director knows, by the client's address.
func (h *swapHost) entries(l *lab) map[string]bool {
	found := map[string]bool{}
	for line := range strings.Lines(l.run("ip", "netns", "exec", h.ns, "ipvsadm", "-Lcn")) {
		if f := strings.Fields(line); len(f) == 6 && f[0] == "TCP" {
			found[f[3]] = true
		}
	}
	return found
}

func (h *swapHost) daemon(t testing.TB, state ipvs.DaemonState, run bool) {
	t.Helper()
	var err error
	if run {
		err = h.kernel.StartDaemon(t.Context(), ipvs.Daemon{State: state, Interface: "eth0", SyncID: 1})
	} else {
		err = h.kernel.StopDaemon(t.Context(), state)
	}
	if err != nil {
		t.Fatalf("%s %v in %s: %v", state, run, h.ns, err)
	}
}

// BenchmarkOrderOfDaemons measures how many connections a planned swap of roles loses
// with each order of starting and stopping the sync daemons.
func BenchmarkOrderOfDaemons(b *testing.B) {
	const (
		gap = 20 * time.Millisecond // nobody accepts
		lag = 30 * time.Millisecond // of daemons that nobody waits for
	)
	type step func(testing.TB, *swapHost)
	start := func(s ipvs.DaemonState) step { return func(t testing.TB, h *swapHost) { h.daemon(t, s, true) } }
	stop := func(s ipvs.DaemonState) step { return func(t testing.TB, h *swapHost) { h.daemon(t, s, false) } }
	none := func(testing.TB, *swapHost) {}
	both := func(a, b step) step { return func(t testing.TB, h *swapHost) { a(t, h); b(t, h) } }
	for _, order := range []struct {
		name                string
		before, soon, later step // of the new active one: before its packets, lag after, FlushTime after
		atOnce, yields      step // of the former one: as its packets end, YieldTime after
		flushed             step // and FlushTime after
	}{
		{"master, backup stopped, packets", both(start(ipvs.Master), stop(ipvs.Backup)), none, none, start(ipvs.Backup), none, stop(ipvs.Master)},
		{"backup stopped, master, packets", both(stop(ipvs.Backup), start(ipvs.Master)), none, none, start(ipvs.Backup), none, stop(ipvs.Master)},
		{"packets, both 30 ms later", none, both(start(ipvs.Master), stop(ipvs.Backup)), none, start(ipvs.Backup), none, stop(ipvs.Master)},
		{"master, packets, backup stopped 3 s later", start(ipvs.Master), none, stop(ipvs.Backup), none, start(ipvs.Backup), stop(ipvs.Master)},
		{"master, backup stopped, packets; former master stopped at once", both(start(ipvs.Master), stop(ipvs.Backup)), none, none, both(stop(ipvs.Master), start(ipvs.Backup)), none, none},
	} {
		b.Run(order.name, func(b *testing.B) {
			l := newSwapLab(b)
			l.directors[0].daemon(b, ipvs.Master, true)
			l.directors[1].daemon(b, ipvs.Backup, true)
			l.point(l.directors[0].mac)
			ctx, cancel := context.WithCancel(b.Context())
			var generator sync.WaitGroup
			generator.Go(func() { l.generate(ctx) })
			defer generator.Wait()
			defer cancel()
			var lost, had [2]int // entries that the new one lacks, of those younger than a second and of the others
			resets, chatty, unsynced, fresh := 0, 0, 0, 0
			for b.Loop() {
				time.Sleep(swapLife + time.Second) // no condition to wait for: a steady stream
				former, next := l.directors[l.active], l.directors[1-l.active]
				l.point("02:00:00:00:00:99")
				ended := time.Now()
				order.before(b, next)
				time.Sleep(gap - time.Since(ended))
				order.atOnce(b, former)
				l.point(next.mac)
				began := time.Now()
				time.Sleep(lag)
				order.soon(b, next)
				time.Sleep(time.Until(ended.Add(syncd.YieldTime)))
				order.yields(b, former)
				time.Sleep(time.Until(ended.Add(syncd.FlushTime)))
				order.later(b, next)
				order.flushed(b, former)
				time.Sleep(500 * time.Millisecond)
				l.active = 1 - l.active
				theirs, ours := former.entries(l.lab), next.entries(l.lab)
				l.mu.Lock()
				for _, c := range l.conns {
					age := ended.Sub(c.opened)
					switch {
					case age > 0 && time.Since(c.opened) < swapLife:
						bin := min(int(age/time.Second), 1)
						had[bin]++
						if c.chatty {
							chatty++
							if c.failed != nil {
								resets++
							}
						}
						if !ours[c.local] {
							lost[bin]++
						}
					case c.opened.After(began) && c.opened.Before(began.Add(500*time.Millisecond)) && c.failed == nil:
						fresh++
						if !theirs[c.local] {
							unsynced++
						}
					}
				}
				l.conns = nil
				l.mu.Unlock()
			}
			b.ReportMetric(0, "ns/op")
			for name, share := range map[string][2]int{
				"%lost-young": {lost[0], had[0]}, "%lost-old": {lost[1], had[1]}, "%reset": {resets, chatty}, "%unheard": {unsynced, fresh},
			} {
				b.ReportMetric(100*float64(share[0])/float64(max(share[1], 1)), name)
			}
			b.Logf("lost, younger than 1 s %d of %d, older %d of %d; reset %d of %d that talk; unheard of %d of the %d after",
				lost[0], had[0], lost[1], had[1], resets, chatty, unsynced, fresh)
		})
	}
}
