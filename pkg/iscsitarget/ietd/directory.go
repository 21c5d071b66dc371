package ietd

import (
	"context"
	"fmt"
	"net"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/isns"
)

// directory is the iSNS server that tells of the targets, and with access control says
// who may log in to them.
type directory struct {
	client *isns.Client
	stop   context.CancelFunc
	ended  chan struct{}
	// server and access are what ietd.conf has.
	server string
	access bool
}

// newDirectory checks what the configuration says of an iSNS server; nil is for none.
func (d *Daemon) newDirectory(conf *ietconf.Config) (*directory, error) {
	if conf.ISNSServer == "" {
		return nil, nil
	}
	client, err := isns.New(isns.Config{Server: conf.ISNSServer, EntityID: d.opts.EntityID, AccessControl: conf.ISNSAccessControl, Log: d.log})
	if err != nil {
		return nil, fmt.Errorf("iSNSServer %s: %w", conf.ISNSServer, err)
	}
	return &directory{client: client, ended: make(chan struct{}), server: conf.ISNSServer, access: conf.ISNSAccessControl}, nil
}

// setDirectory changes to another server, or to none. The old one is told that the
// targets are gone, for which it has a few seconds.
func (d *Daemon) setDirectory(next *directory) {
	old := d.directory.Load()
	if old != nil && next != nil && old.server == next.server && old.access == next.access {
		d.register()
		return
	}
	if old != nil {
		old.stop()
		<-old.ended
	}
	d.directory.Store(next)
	if next == nil {
		return
	}
	d.register()
	ctx, stop := context.WithCancel(context.Background())
	next.stop = stop
	go func() {
		defer close(next.ended)
		_ = next.client.Run(ctx) // it runs once
	}()
}

// register has the server know the targets and portals of now.
func (d *Daemon) register() {
	dir := d.directory.Load()
	if dir == nil {
		return
	}
	var r isns.Registration
	for _, t := range d.targets {
		r.Targets = append(r.Targets, isns.Target{Name: t.live.Name(), Alias: t.conf.Alias})
	}
	for _, p := range d.listening() {
		r.Portals = append(r.Portals, isns.Portal{Addr: p})
	}
	if err := dir.client.Set(r); err != nil {
		d.log.Error("the iSNS server does not hear of a change", "error", err)
	}
}

// listens is a portal that is listened on from now on.
func (d *Daemon) listens(a *net.TCPAddr) {
	d.nearMu.Lock()
	d.portals = append(d.portals, a.AddrPort())
	d.nearMu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.register()
}
