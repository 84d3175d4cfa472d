package e2e_test

import (
	"fmt"
	"time"
)

// A mark is when, after a director accepted its last packet, a step of its succession was
// done. The steps are those of the successor's event.
type mark struct {
	step  string
	after time.Duration
}

// marksOf returns when the steps were done with which another than former became active,
// counted from lost. A system that does not tell has none.
func marksOf(s system, former *node, lost time.Time) (marks []mark) {
	if _, tells := s.(cluster); !tells {
		return nil
	}
	l := s.net()
	l.await("the successor's event", func() error {
		for _, n := range l.others(former) {
			events, err := n.events("--node", n.name)
			if err != nil {
				return err
			}
			for _, e := range events.Events { // it may lose the lease later, and have it again
				if e.Kind != "active" || e.Time.Before(lost) {
					continue
				}
				at := e.Time.Sub(lost) - time.Duration(e.TotalMS)*time.Millisecond
				marks = []mark{{e.From, at}}
				for _, step := range e.Steps {
					at += time.Duration(step.MS) * time.Millisecond
					marks = append(marks, mark{step.Name, at})
				}
				return nil
			}
		}
		return fmt.Errorf("none since %s", lost)
	})
	return marks
}
