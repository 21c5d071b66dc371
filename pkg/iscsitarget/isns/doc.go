// Package isns is a client of an iSNS server (RFC 4171) for an iSCSI target:
// it registers targets and their portals, answers the server's questions
// whether they are still there, and asks it which initiators may see a target.
//
//	c, err := isns.New(isns.Config{Server: "isns.example", EntityID: "host.example", AccessControl: true, Log: log})
//	err = c.Set(isns.Registration{Portals: portals, Targets: targets})
//	err = c.Run(ctx) // until ctx ends; then nothing is registered any more
//
// One TCP connection to the server is kept; while the server is away the client
// tries again after a growing, bounded time, and then registers everything
// anew. The server reaches this host with Entity Status Inquiries and State
// Change Notifications on a port of the address that this host uses towards it.
// Both go to a portal's own address (RFC 4171 sections 6.3.4 and 6.3.7), so they
// are asked for only for portals with that address; without any, changes are
// noticed by asking again every minute.
//
// Known gaps: iSNS over UDP, authentication blocks (section 5.5), heartbeats
// and the discovery of servers (SLP, DHCP), Fibre Channel, the
// administration of discovery domains, and control nodes. One target that the
// server refuses (because another entity has registered its name) keeps the
// registration from succeeding as a whole. An alias that is taken away stays at
// the server as it was. Messages are not authenticated: who can speak with the
// server's address is believed.
package isns
