package fault

import (
	"slices"
	"testing"
	"time"
)

func TestDate(t *testing.T) {
	early, late := time.Unix(1000, 0), time.Unix(2000, 0)
	before := []Fault{{Object: "a", Message: "no module", Since: early}, {Object: "b", Message: "busy", Since: early}}
	list := []Fault{{Object: "a", Message: "no module"}, {Object: "b", Message: "refused"}, {Object: "c", Message: "busy"}}
	fresh := Date(list, before, late)
	want := []Fault{
		{Object: "a", Message: "no module", Since: early},
		{Object: "b", Message: "refused", Since: late},
		{Object: "c", Message: "busy", Since: late},
	}
	if !slices.Equal(list, want) || !slices.Equal(fresh, want[1:]) {
		t.Errorf("dated %v, fresh %v; want %v, and the last two", list, fresh, want)
	}
}

func TestJoin(t *testing.T) {
	list := []Fault{{Object: "a", Message: "no module"}, {Object: "b", Message: "busy"}}
	for _, c := range []struct {
		limit, count int
		want         string
	}{
		{5, 2, "a: no module\nb: busy"},
		{1, 2, "a: no module\nand 1 more"},
		{5, 9, "a: no module\nb: busy\nand 7 more"},
	} {
		if err := Join(list, c.limit, c.count); err == nil || err.Error() != c.want {
			t.Errorf("%d of %d: %v, want %q", c.limit, c.count, err, c.want)
		}
	}
	if err := Join(nil, 5, 0); err != nil {
		t.Errorf("none: %v", err)
	}
}
