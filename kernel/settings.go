package kernel

import (
	"context"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Timeouts returns the connection timeouts.
func (c *Client) Timeouts(ctx context.Context) (ipvs.Timeouts, error) {
	return readOne(ctx, c.link, Request{Op: OpTimeouts}, decodeTimeouts)
}

// SetTimeouts sets the connection timeouts that are not zero. A connection takes
// its new timeout with its next packet.
func (c *Client) SetTimeouts(ctx context.Context, t ipvs.Timeouts) error {
	return c.do(ctx, Request{Op: OpSetTimeouts, Timeouts: t})
}

// Info returns what the kernel says about its IPVS.
func (c *Client) Info(ctx context.Context) (ipvs.Info, error) {
	return readOne(ctx, c.link, Request{Op: OpInfo}, decodeInfo)
}
