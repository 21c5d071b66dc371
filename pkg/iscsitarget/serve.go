package iscsitarget

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/login"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/session"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/wire"
	"golang.org/x/sys/unix"
)

// portalGroup is the tag of the only target portal group.
const portalGroup = 1

// maxAHS is the longest additional header segment: its length is one byte,
// counted in words of four.
const maxAHS = 255 * 4

// errNotLogin is a peer that does not speak iSCSI, or not yet.
var errNotLogin = errors.New("first PDU is no Login Request")

// serve runs a connection from its first byte to its end.
func (s *Server) serve(c net.Conn) {
	log := s.log.With("remote", c.RemoteAddr().String())
	s.trace(ConnectionRequested{c.RemoteAddr()})
	defer s.trace(ConnectionClosed{c.RemoteAddr()})
	_ = c.SetDeadline(time.Now().Add(s.opts.LoginTimeout))
	d := &door{server: s, visitor: Visitor{Remote: addrPort(c.RemoteAddr()), Local: addrPort(c.LocalAddr())}, local: c.LocalAddr()}
	conn, err := s.login(c, d)
	if err != nil {
		s.refused(c, d, err)
		return
	}
	s.loggedIn(c)
	s.counters.logins.Add(1)
	_ = c.SetDeadline(time.Time{})
	sess := conn.Session()
	log = log.With("initiator", sess.Initiator, "target", sess.Target, "tsih", sess.TSIH, "cid", conn.CID)
	log.Info("connection opened", "discovery", sess.Discovery)
	sid := SID{sess.ISID, sess.TSIH}
	s.trace(ConnectionTaken{conn.CID, d.statSN, d.expStatSN, sid, descriptor(c)})
	err = conn.Serve()
	s.trace(ConnectionLeft{conn.CID, sid, sess.Target})
	if errors.Is(err, session.ErrLogout) {
		log.Info("connection closed by logout")
		return
	}
	log.Warn("connection ended", "error", err)
}

// prepare takes a connection over that was accepted; one that is no TCP connection stays
// as it is.
func prepare(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	tune(tcp)
	w, err := wire.New(tcp)
	if err != nil { // there was no descriptor for it: it works as it is
		return c
	}
	return w
}

// tune sets what lets a dead peer be noticed. TCP_USER_TIMEOUT covers data that
// is never acknowledged, keepalive a silent peer; the session's NOP-In covers
// the rest.
func tune(tcp *net.TCPConn) {
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4})
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeTimeout.Milliseconds()))
	})
}

// login runs the login phase (RFC 7143 section 6.3). The connection that it
// returns has a session with its seat, and the last Login Response in its outbox.
func (s *Server) login(c net.Conn, d *door) (*session.Connection, error) {
	reader := pdu.NewReader(c, login.MaxData, maxAHS)
	machine := login.New(d, portalGroup)
	var statSN uint32
	var last pdu.LoginRequest
	for first := true; ; first = false {
		p, err := reader.Next()
		switch {
		case err != nil:
			return nil, err
		case p.BHS.Opcode() != pdu.OpLoginRequest && first:
			return nil, fmt.Errorf("%w: opcode %#02x", errNotLogin, byte(p.BHS.Opcode()))
		case p.BHS.Opcode() != pdu.OpLoginRequest:
			// RFC 7143 section 6.3: once login has begun it is answered.
			err := loginError{pdu.LoginInvalidDuring, fmt.Errorf("opcode %#02x during login", byte(p.BHS.Opcode()))}
			return nil, errors.Join(err, s.sendLogin(c, last, login.Refuse(last, pdu.LoginInvalidDuring), statSN))
		}
		req := pdu.ParseLoginRequest(&p.BHS)
		if first {
			statSN, d.expected = req.ExpStatSN, req.CmdSN
		}
		s.traceLogin(&p, req, d.expected)
		last = req
		resp, done, err := machine.Step(req, p.Data)
		if err != nil {
			var dropped login.DroppedKey
			if errors.As(err, &dropped) {
				s.trace(KeyDropped(dropped.Pair))
			}
			return nil, errors.Join(loginError{resp.PDU.Status, err}, s.sendLogin(c, req, resp, statSN))
		}
		if !done {
			if err := s.sendLogin(c, req, resp, statSN); err != nil {
				return nil, err
			}
			statSN++
			continue
		}
		d.statSN, d.expStatSN = statSN, req.ExpStatSN
		conn, err := s.open(c, reader, machine.Result(), d, statSN)
		if err != nil {
			status := loginStatus(err)
			return nil, errors.Join(loginError{status, err}, s.sendLogin(c, req, login.Refuse(req, status), statSN))
		}
		resp.PDU.TSIH = conn.Session().TSIH
		conn.Send(resp.PDU.Header(), resp.Data)
		return conn, nil
	}
}

// sendLogin writes a Login Response: before full-feature phase there is one PDU
// under way at a time.
func (s *Server) sendLogin(c net.Conn, req pdu.LoginRequest, resp login.Response, statSN uint32) error {
	h := resp.PDU.Header()
	h.SetStatSN(statSN)
	h.SetWindow(req.CmdSN, req.CmdSN)
	s.trace(Transferred{BHS: h[:], Data: resp.Data})
	_, err := c.Write(pdu.Digests{}.Append(nil, h, resp.Data))
	return err
}

// door is what one connection may log in to: it implements login.Door and
// remembers the grants that its answer rested on.
type door struct {
	server  *Server
	visitor Visitor
	local   net.Addr
	target  string
	grants  []*Grant
	// expected is the login's first CmdSN, which all of it has; statSN the last
	// StatSN of it, and expStatSN what its last request expected.
	expected, statSN, expStatSN uint32
}

// addrPort is an address of a connection, invalid where it is none of TCP.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := tcp.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// Open implements login.Door. An unknown target and one that this initiator may
// not use get the same answer: names are not to be probed.
func (d *door) Open(initiator, target string) ([]login.Credentials, pdu.LoginStatus) {
	d.visitor.Initiator, d.target = initiator, target
	if target == "" {
		return credentials(d.server.discoveryCHAP()), pdu.LoginSuccess
	}
	t, ok := d.server.Target(target)
	if !ok || !t.admits(d.visitor) {
		return nil, pdu.LoginNotFound
	}
	if d.grants = t.grantsOf(initiator); len(d.grants) == 0 {
		return nil, pdu.LoginNotFound
	}
	var chaps []CHAP
	for _, g := range d.grants {
		if g.CHAP == nil {
			return nil, pdu.LoginSuccess
		}
		chaps = append(chaps, *g.CHAP)
	}
	return credentials(chaps), pdu.LoginSuccess
}

// Moved implements login.Door.
func (d *door) Moved(initiator, target string) (address string, permanent bool) {
	d.visitor.Initiator = initiator
	d.server.trace(TargetSought{target})
	t, ok := d.server.Target(target)
	if !ok || !t.admits(d.visitor) {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.moved, t.forGood
}

// Wants implements login.Door.
func (d *door) Wants(target string) (text.Params, string) {
	settings := TargetSettings{}
	if t, ok := d.server.Target(target); ok {
		settings = t.current()
	}
	p := DefaultSessionParameters()
	if settings.Sessions != nil {
		p = *settings.Sessions
	}
	return p.wants(d.server.sessions.SessionBudget), settings.Alias
}

// Proved implements login.Door.
func (d *door) Proved(user string, err error) {
	switch {
	case err == nil:
		d.server.trace(UserAccepted{user})
	case errors.Is(err, login.ErrUnknownUser):
		d.server.trace(UserUnknown{user})
	default:
		d.server.trace(UserRefused{user})
	}
}

// used is the grant that a login rested on: the one whose credentials, in the
// order of Open's answer, were proven, or the one that asks for no proof.
func (d *door) used(proven int) *Grant {
	if proven >= 0 {
		return d.grants[proven]
	}
	for _, g := range d.grants {
		if g.CHAP == nil {
			return g
		}
	}
	return nil
}

func credentials(chaps []CHAP) []login.Credentials {
	out := make([]login.Credentials, 0, len(chaps))
	for _, c := range chaps {
		out = append(out, login.Credentials(c))
	}
	return out
}

// SendTargets implements session.Host for discovery sessions; normal sessions
// get their own target through it.
func (d *door) SendTargets(name string) ([]text.Pair, bool) {
	var pairs []text.Pair
	for _, t := range d.server.Targets() {
		if name != "" && !strings.EqualFold(name, t.name) || len(t.grantsOf(d.visitor.Initiator)) == 0 || !t.admits(d.visitor) {
			continue
		}
		pairs = append(pairs, text.Pair{Key: "TargetName", Value: t.name})
		for _, portal := range d.portals(t) {
			pairs = append(pairs, text.Pair{Key: "TargetAddress", Value: fmt.Sprintf("%s,%d", portal, portalGroup)})
		}
	}
	return pairs, true
}

func (d *door) portals(t *Target) []string {
	if list := t.current().Portals; list != nil {
		return list(d.visitor.Local)
	}
	if len(d.server.opts.Portals) > 0 {
		return d.server.opts.Portals
	}
	return []string{d.local.String()}
}
