package kernel

import (
	"context"
	"time"
)

// TableOption changes how Table reads.
type TableOption func(*pace)

// Rest has Table rest after each part, some 200 destinations, for so many times as long
// as that took, at most a second: a reader that is in no hurry takes the processors, and
// the one lock that the kernel has for all of its IPVS, from nobody for long.
func Rest(times int) TableOption {
	return func(p *pace) { p.times = times }
}

const longestRest = time.Second

// pace makes a reader rest.
type pace struct {
	times int
	began time.Time // the part
	size  int       // of it so far
}

// read counts n bytes of answers, and rests when they make a part. The error is that of
// ctx, when it ends meanwhile.
func (p *pace) read(ctx context.Context, n int) error {
	p.size += n
	if p.times == 0 || p.size < chunkSize {
		return nil
	}
	timer := time.NewTimer(min(time.Duration(p.times)*time.Since(p.began), longestRest))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.size, p.began = 0, time.Now()
	return nil
}
