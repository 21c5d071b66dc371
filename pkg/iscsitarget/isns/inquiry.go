package isns

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// reachedAt takes the addresses of a new connection: the inbox moves with the
// local one.
func (c *Client) reachedAt(local, server netip.Addr) {
	c.mu.Lock()
	c.state.Server = server
	c.mu.Unlock()
	if c.inbox != nil && c.inbox.addr == local {
		return
	}
	if c.inbox != nil {
		// An update of what is registered could not take the old ports back.
		c.closeInbox()
		c.replaced = false
	}
	if !local.IsValid() {
		return
	}
	b, err := openInbox(local, c.trusts, c.inquiry, c.log)
	if err != nil {
		c.log.Warn("Cannot listen for the iSNS server's messages; changes are noticed later", "addr", local.String(), "err", err)
		return
	}
	c.inbox = b
}

func (c *Client) closeInbox() {
	if c.inbox != nil {
		c.inbox.close()
		c.inbox = nil
	}
}

// inboxPort is the TCP port of ESI and SCN messages; 0: there is none.
func (c *Client) inboxPort() uint16 {
	if c.inbox == nil {
		return 0
	}
	return c.inbox.port
}

// inquiry answers a message of the server's own; false: with silence.
func (c *Client) inquiry(m message) (message, bool) {
	reply := message{function: m.function | response, transaction: m.transaction}
	l, err := parseAttrs(m.payload)
	switch {
	case m.function&response != 0:
		return message{}, false
	case err != nil:
		c.log.Warn("The iSNS server sent a malformed message", "function", m.function.String(), "err", err)
		reply.payload = answer(FormatError, nil)
		return reply, true
	case m.function == esi:
		if !c.isOurs(l) {
			c.log.Warn("The iSNS server asked about a portal that is not registered; it gets no answer")
			return message{}, false
		}
		c.mu.Lock()
		c.state.LastESI = time.Now()
		c.mu.Unlock()
		reply.payload = answer(Success, l)
	case m.function == scn:
		reply.payload = c.notified(l)
	default:
		reply.payload = answer(MessageNotSupported, nil)
	}
	return reply, true
}

// isOurs says whether an ESI (RFC 4171 section 5.6.5.13) asks about a portal
// that is registered.
func (c *Client) isOurs(l attrs) bool {
	id, _ := l.find(tagEntityID)
	a, _ := l.find(tagPortalAddr)
	p, _ := l.find(tagPortalPort)
	at, err := a.addr()
	port, err2 := p.number()
	if err != nil || err2 != nil || !strings.EqualFold(id.text(), c.config.EntityID) {
		return false
	}
	return slices.ContainsFunc(c.having().portals, func(q portal) bool {
		return q.addr.Addr() == at && uint32(q.addr.Port()) == port
	})
}

// notified takes an SCN and returns the response's payload.
func (c *Client) notified(l attrs) []byte {
	n, err := parseNotification(l)
	if err != nil {
		c.log.Warn("The iSNS server sent a malformed notification", "err", err)
		return answer(FormatError, nil)
	}
	if !c.having().has(n.Target) {
		return answer(NoSuchEntry, nil)
	}
	c.news.put(n)
	return answer(Success, attrs{l[0]})
}
