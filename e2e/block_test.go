package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filler is a transaction of nftables that keeps the kernel busy for longer than a
// lease lasts: all the while it holds the lock that every other transaction in its
// network namespace needs. Each range of a concatenation is sorted into what is there.
var filler = sync.OnceValues(func() (string, error) {
	const enough = 1500 * time.Millisecond
	for n := 4000; ; n *= 2 {
		var b strings.Builder
		b.WriteString("add table ip filler\nadd set ip filler s { type ipv4_addr . inet_service; flags interval; }\nadd element ip filler s {\n")
		for i := range n {
			fmt.Fprintf(&b, "10.%d.%d.%d/31 . %d-%d,\n", i>>15, i>>7&255, i&127*2, i, i+1)
		}
		b.WriteString("}\ndelete table ip filler\n")
		cmd := exec.Command("unshare", "-n", "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(b.String())
		began := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
		if time.Since(began) > enough {
			return b.String(), nil
		}
	}
})

// blockedNFT has every write to the owner's fence wait in the kernel, from when its
// permit has ended until the transaction that is in the way is through.
func blockedNFT(l *lab, owner *node) func() {
	l.t.Helper()
	text, err := filler()
	if err != nil {
		l.t.Fatalf("fill nftables: %v", err)
	}
	cmd := exec.Command("ip", "netns", "exec", owner.ns, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	l.await("owner whose fence is not renewed", func() error {
		if o := l.probe.owner(); o != "" {
			return fmt.Errorf("%s accepts", o)
		}
		return nil
	})
	return func() {
		if err := <-done; err != nil {
			l.t.Fatalf("fill nftables: %v\n%s", err, &out)
		}
	}
}

// blockedNFTAndMute adds that the owner cannot speak to the others any more. One
// kernel runs them all: another owner's fence opens when the lock is free.
func blockedNFTAndMute(l *lab, owner *node) func() {
	unblock := blockedNFT(l, owner)
	for _, o := range l.others(owner) { // nftables could not do it now
		l.run("ip", "-n", owner.ns, "route", "add", "blackhole", o.address)
	}
	return func() {
		unblock()
		for _, o := range l.others(owner) {
			l.run("ip", "-n", owner.ns, "route", "del", "blackhole", o.address)
		}
	}
}

// blockedRTNL holds the lock that all requests about interfaces and addresses of the
// whole kernel need. A system call that copies its result to memory while it has the
// lock waits there: that memory is missing, and this process has taken on to supply
// it.
func blockedRTNL(l *lab, _ *node) func() {
	l.t.Helper()
	release, err := holdRTNL()
	if err != nil {
		l.t.Fatalf("hold the lock of rtnetlink: %v", err)
	}
	return release
}

// The parts of userfaultfd(2) that are needed.
const (
	uffdAPI          = 0xc018aa3f
	uffdRegister     = 0xc020aa00
	uffdZeropage     = 0xc020aa04
	uffdMissing      = 1
	ethtoolGetFlags  = 0x25
	faultMessageSize = 32
)

func holdRTNL() (release func(), err error) {
	page := os.Getpagesize()
	memory, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	fault, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("userfaultfd: %w", errno)
	}
	ioctl := func(fd int, request uint, arg unsafe.Pointer) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
			return errno
		}
		return nil
	}
	missing := uint64(uintptr(unsafe.Pointer(&memory[page])))
	api := struct{ version, features, ioctls uint64 }{version: 0xaa}
	register := struct{ start, length, mode, ioctls uint64 }{missing, uint64(page), uffdMissing, 0}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err = errors.Join(err, ioctl(int(fault), uffdAPI, unsafe.Pointer(&api)), ioctl(int(fault), uffdRegister, unsafe.Pointer(&register))); err != nil {
		return nil, err
	}
	// struct ethtool_value: the command is there, the result is missing.
	command := (*uint32)(unsafe.Pointer(&memory[page-4]))
	*command = ethtoolGetFlags
	ended := make(chan error, 1)
	go func() {
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(command)}
		copy(request.name[:], "lo")
		ended <- ioctl(socket, unix.SIOCETHTOOL, unsafe.Pointer(&request))
	}()
	// The message says that the call has come to the missing page.
	if _, err := unix.Read(int(fault), make([]byte, faultMessageSize)); err != nil {
		return nil, err
	}
	return func() {
		supply := struct {
			start, length, mode uint64
			supplied            int64
		}{missing, uint64(page), 0, 0}
		if err := errors.Join(ioctl(int(fault), uffdZeropage, unsafe.Pointer(&supply)), <-ended); err != nil {
			panic(fmt.Sprintf("release the lock of rtnetlink: %v", err)) // the kernel is of no more use
		}
		_, _, _ = unix.Close(int(fault)), unix.Close(socket), unix.Munmap(memory)
	}, nil
}
