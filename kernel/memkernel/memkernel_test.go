package memkernel_test

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/kernel/kerneltest"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
)

func open(*testing.T) kerneltest.Kernel {
	return memkernel.New(memkernel.WithInterfaces(
		memkernel.Interface{Name: kerneltest.InterfaceUp},
		memkernel.Interface{Name: kerneltest.InterfaceDown, Down: true},
	))
}

func TestConformance(t *testing.T) { kerneltest.Run(t, open) }

func service(t *testing.T) ipvs.Service {
	t.Helper()
	key, err := ipvs.ParseServiceKey("tcp://10.9.0.100:80")
	if err != nil {
		t.Fatal(err)
	}
	return ipvs.Service{Key: key, Scheduler: "mh"}
}

func TestWithoutScheduler(t *testing.T) {
	err := memkernel.New(memkernel.WithoutScheduler("mh")).AddService(t.Context(), service(t))
	if !errors.Is(err, kernel.ErrNoScheduler) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	want := `add-service tcp://10.9.0.100:80: the kernel has no scheduler "mh"; load it: modprobe ip_vs_mh: no such file or directory`
	if err == nil || err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestRefuse(t *testing.T) {
	ctx := t.Context()
	k := memkernel.New()
	s := service(t)
	own := errors.New("own error")
	var refused error = syscall.EPERM
	var asked []string
	k.Refuse(func(op, object string) error {
		asked = append(asked, op+" "+object)
		return refused
	})
	if err := k.AddService(ctx, s); !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v", err)
	}
	refused = own
	if err := k.AddService(ctx, s); !errors.Is(err, own) {
		t.Errorf("error %v", err)
	}
	if err := k.ByHand().AddService(ctx, s); err != nil {
		t.Errorf("by hand: %v", err)
	}
	if len(asked) != 2 || asked[0] != "add-service tcp://10.9.0.100:80" {
		t.Errorf("asked %q", asked)
	}
	refused = nil
	if _, err := k.Service(ctx, s.Key); err != nil {
		t.Errorf("by hand and here are two kernels: %v", err)
	}
	k.Refuse(nil)
	if err := k.DeleteService(context.Background(), s.Key); err != nil {
		t.Error(err)
	}
}

func TestEveryInterfaceExistsByDefault(t *testing.T) {
	k := memkernel.New()
	d := ipvs.Daemon{State: ipvs.Backup, Interface: "eth7"}
	if err := k.StartDaemon(t.Context(), d); err != nil {
		t.Error(err)
	}
	k.SetInterfaces(memkernel.Interface{Name: "eth0", MTU: 9000})
	d.State = ipvs.Master
	if err := k.StartDaemon(t.Context(), d); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("error %v", err)
	}
	if err := k.StopDaemon(t.Context(), ipvs.Backup); err != nil {
		t.Error(err)
	}
	if err := k.StartDaemon(t.Context(), ipvs.Daemon{State: ipvs.Backup, Interface: "eth0"}); err != nil {
		t.Error(err)
	}
	daemons, err := k.Daemons(t.Context())
	if err != nil || len(daemons) != 1 || daemons[0].MaxLen != 8972 {
		t.Errorf("daemons %+v, %v", daemons, err)
	}
}
