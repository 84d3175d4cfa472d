package ipvsadm_test

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/ipvsadm"
)

// thresholds are what ipvsadm does not save.
var thresholds = regexp.MustCompile(` -[xy] \d+`)

func written(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/table.json")
	if err != nil {
		t.Fatal(err)
	}
	var table ipvs.Table
	if err := json.Unmarshal(data, &table); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := ipvsadm.Write(&b, table); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func lines(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// TestWriteAsIpvsadmSaves compares with what ipvsadm 1.31 on a real kernel printed
// for the same table (testdata/capture), but for its known mistakes.
func TestWriteAsIpvsadmSaves(t *testing.T) {
	want := lines(t, "testdata/saved")
	for i, line := range want {
		switch line {
		case "-A -f -1 -s wlc":
			want = append(slices.Delete(want, i, i+1), "-A -f 4294967295 -s wlc")
		case "-A -t 10.0.0.9:86 -s sh -b ":
			want[i] += "flag-3"
		case "-A -t 10.0.0.9:82 -s mh -b mh-fallback,mh-port":
			want[i] += ",flag-3"
		}
	}
	got := strings.Split(strings.TrimSpace(thresholds.ReplaceAllString(written(t), "")), "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWriteThresholds(t *testing.T) {
	for _, want := range []string{
		"-a -t 10.0.0.9:80 -r 10.1.0.10:8080 -m -w 0 -x 2000 -y 1500\n",
		"-a -t 10.0.0.9:80 -r 10.1.0.5:80 -i -w 7 --tun-type gue --tun-port 6080 --tun-csum -x 9\n",
	} {
		if got := written(t); !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
}

func TestWriteEmptyTable(t *testing.T) {
	var b strings.Builder
	if err := ipvsadm.Write(&b, ipvs.Table{}); err != nil || b.Len() > 0 {
		t.Errorf("the empty table gives %q, %v", b.String(), err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestWriteFails(t *testing.T) {
	key, err := ipvs.ParseServiceKey("tcp://10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	table := ipvs.TableOf(ipvs.Service{Key: key})
	if err := ipvsadm.Write(fullDisk{}, table); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want the writer's error", err)
	}
}
