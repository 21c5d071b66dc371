package lab

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// Controller is csi-ietd controller on some machine, with its target.
type Controller struct {
	*Service
	csi.ControllerClient
	lab *Lab

	// Pool is the pool's directory on that machine.
	Pool string
	// Portal is where its target listens.
	Portal string

	services     []csi.PluginCapability_Service_Type
	capabilities []csi.ControllerServiceCapability_RPC_Type
}

// ControllerSocket is the controller's CSI socket on its machine, and in the
// guests that it is carried into.
const ControllerSocket = "/run/csi-ietd/controller.sock"

// StartController runs csi-ietd controller: on the lab's own namespace with a
// pool in the lab's directory, or on a guest with a pool where its state is.
// More flags may follow.
func (l *Lab) StartController(ctx context.Context, m *Machine, flags ...string) (*Controller, error) {
	c := &Controller{lab: l, Pool: "/var/lib/csi-ietd/pool", Portal: m.Storage + ":3260"}
	if m == l.Outside {
		c.Pool = filepath.Join(l.dir, "pool")
	}
	args := append([]string{"controller", verbose, "--endpoint", "unix://" + ControllerSocket,
		"--pool-dir", c.Pool, "--listen-address", c.Portal}, flags...)
	var err error
	if c.Service, err = l.startService(ctx, m, "controller", ControllerSocket, args); err != nil {
		return nil, err
	}
	c.ControllerClient = csi.NewControllerClient(c.Conn)
	return c, c.learn(ctx)
}

// learn asks what the controller can do.
func (c *Controller) learn(ctx context.Context) error {
	plugin, err := csi.NewIdentityClient(c.Conn).GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{})
	if err != nil {
		return err
	}
	for _, capability := range plugin.Capabilities {
		c.services = append(c.services, capability.GetService().GetType())
	}
	answer, err := c.ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	for _, capability := range answer.Capabilities {
		c.capabilities = append(c.capabilities, capability.GetRpc().GetType())
	}
	return nil
}

// HasPluginService reports whether the plugin advertises a service.
func (c *Controller) HasPluginService(service csi.PluginCapability_Service_Type) bool {
	return slices.Contains(c.services, service)
}

// Can reports whether the controller advertises a capability.
func (c *Controller) Can(capability csi.ControllerServiceCapability_RPC_Type) bool {
	return slices.Contains(c.capabilities, capability)
}
