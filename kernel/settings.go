package kernel

import (
	"context"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Timeouts returns the connection timeouts.
func (c *Client) Timeouts(ctx context.Context) (ipvs.Timeouts, error) {
	r := Request{Op: OpTimeouts}
	payload, err := c.one(ctx, r)
	if err != nil {
		return ipvs.Timeouts{}, err
	}
	t, err := decodeTimeouts(payload)
	if err != nil {
		return ipvs.Timeouts{}, malformed(r, err)
	}
	return t, nil
}

// SetTimeouts sets the connection timeouts that are not zero. A connection takes
// its new timeout with its next packet.
func (c *Client) SetTimeouts(ctx context.Context, t ipvs.Timeouts) error {
	_, err := c.do(ctx, Request{Op: OpSetTimeouts, Timeouts: t})
	return err
}

// Info returns what the kernel says about its IPVS.
func (c *Client) Info(ctx context.Context) (ipvs.Info, error) {
	r := Request{Op: OpInfo}
	payload, err := c.one(ctx, r)
	if err != nil {
		return ipvs.Info{}, err
	}
	info, err := decodeInfo(payload)
	if err != nil {
		return ipvs.Info{}, malformed(r, err)
	}
	return info, nil
}
