// Package api is the HTTP API of an agent and its client: JSON over a unix socket.
// Both sides of a resource are in one file. openapi.yaml describes it.
//
// Who may open the socket may do everything. There is no TCP listener.
package api
