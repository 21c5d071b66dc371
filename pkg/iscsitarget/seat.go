package iscsitarget

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/login"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/session"
)

// seat is a session's place at its target, from before its login is answered
// until its last device call has returned. Who fences an initiator takes its
// grants away first and then waits for its seats: no login can slip between.
type seat struct {
	initiator string
	isid      pdu.ISID
	grant     *Grant // that the login rested on; nil in a discovery session
	nonce     string // the stage nonce of the login
	conn      net.Conn
	session   atomic.Pointer[session.Session]
	closed    atomic.Bool
	done      chan struct{}
	release   func()
}

// take puts the session into its seat, where it may have been closed before.
func (s *seat) take(sess *session.Session) {
	s.session.Store(sess)
	if s.closed.Load() {
		sess.Close()
	}
}

// close ends the session that sits there, or is about to.
func (s *seat) close() {
	s.closed.Store(true)
	_ = s.conn.Close()
	if sess := s.session.Load(); sess != nil {
		sess.Close()
	}
}

// leave gives the seat back.
func (s *seat) leave() {
	s.release()
	close(s.done)
}

// refusal is a login that was refused after the login phase itself.
type refusal struct {
	status pdu.LoginStatus
	cause  string
}

func (r refusal) Error() string { return r.cause }

func loginStatus(err error) pdu.LoginStatus {
	var r refusal
	if errors.As(err, &r) {
		return r.status
	}
	return pdu.LoginTargetError
}

// open makes the connection that a login has earned, in a new session or in the one
// that it asks for.
func (s *Server) open(c net.Conn, reader *pdu.Reader, r login.Result, d *door, statSN uint32) (*session.Connection, error) {
	s.trace(SessionSought{r.Initiator, SID{r.ISID, r.TSIH}})
	if r.TSIH != 0 {
		return s.join(c, reader, r, d, statSN)
	}
	info := session.Info{
		Target: r.Target, Initiator: r.Initiator, Discovery: r.Discovery, ISID: r.ISID,
		TSIH: s.newTSIH(), Params: r.Params,
	}
	seat := &seat{initiator: r.Initiator, isid: r.ISID, nonce: r.Nonce, conn: c, done: make(chan struct{})}
	sid := SID{r.ISID, info.TSIH}
	ended := func() {
		seat.leave()
		s.trace(SessionEnded{sid, r.Target})
	}
	log := s.log.With("initiator", r.Initiator, "tsih", info.TSIH)
	var sess *session.Session
	if r.Discovery {
		s.ask(seat)
		sess = session.New(s.sessions, info, discoveryHost{d}, nil, nil, r.CmdSN, ended, log)
	} else {
		t, ok := s.Target(r.Target)
		if !ok {
			return nil, refusal{pdu.LoginNotFound, "the target was removed during login"}
		}
		seat.grant = d.used(r.Proven)
		if err := t.sit(seat); err != nil {
			return nil, err
		}
		nexus, err := t.attach(seat, r)
		if err != nil {
			seat.leave()
			return nil, err
		}
		sess = session.New(t.current().Sessions.over(s.sessions), info, targetHost{t, d}, t.units, nexus, r.CmdSN, ended, log)
	}
	s.trace(SessionCreated{sid})
	seat.take(sess)
	return sess.Connect(c, reader, r.CID, r.Params, statSN, reinstatementWait)
}

// attach makes the I_T nexus of a new session.
func (t *Target) attach(st *seat, r login.Result) (*scsi.Nexus, error) {
	nexus, err := t.units.Attach(scsi.NexusConfig{
		InitiatorPort: initiatorPort(r.Initiator, r.ISID),
		TargetPort:    fmt.Sprintf("%s,t,0x%04x", t.name, portalGroup),
		TPGT:          portalGroup,
		ReadOnly:      st.grant.ReadOnly,
		Functions:     session.Functions(r.Params),
		Stage:         blockdev.Stage{Initiator: r.Initiator, Nonce: r.Nonce},
	})
	if err != nil {
		return nil, fmt.Errorf("attach to the units of %s: %w", t.name, err)
	}
	return nexus, nil
}

// join adds a connection to the session that its login asks for (RFC 7143 section
// 6.3.1).
func (s *Server) join(c net.Conn, reader *pdu.Reader, r login.Result, d *door, statSN uint32) (*session.Connection, error) {
	var sess *session.Session
	if t, ok := s.Target(r.Target); ok && !r.Discovery {
		sess = t.joinable(r, d.used(r.Proven))
	}
	if sess == nil {
		return nil, refusal{pdu.LoginNoSession, fmt.Sprintf("no session with TSIH %d takes another connection", r.TSIH)}
	}
	conn, err := sess.Connect(c, reader, r.CID, sess.Params.OnConnection(r.Params), statSN, reinstatementWait)
	switch {
	case errors.Is(err, session.ErrTooManyConnections):
		return nil, refusal{pdu.LoginTooManyConnections, err.Error()}
	case errors.Is(err, session.ErrBusy):
		return nil, refusal{pdu.LoginServiceUnavailable, err.Error()}
	case err != nil:
		return nil, refusal{pdu.LoginNoSession, err.Error()}
	}
	return conn, nil
}

// joinable returns the session that a login asks for: the same initiator port, and
// the same right to be there.
func (t *Target) joinable(r login.Result, g *Grant) *session.Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed || !t.holds(g) || t.fencing(r.Initiator) {
		return nil
	}
	for st := range t.seats {
		sess := st.session.Load()
		if sess != nil && sess.TSIH == r.TSIH && st.initiator == r.Initiator && st.isid == r.ISID &&
			st.grant.Initiator == g.Initiator && st.grant.user() == g.user() && st.nonce == r.Nonce {
			return sess
		}
	}
	return nil
}

// initiatorPort is the SCSI name of an iSCSI initiator port (RFC 7143 section
// 4.2.7.1): persistent reservations know the initiator by it.
func initiatorPort(initiator string, isid pdu.ISID) string {
	return fmt.Sprintf("%s,i,0x%x", initiator, isid[:])
}

// newTSIH returns the next target session handle, which is never 0.
func (s *Server) newTSIH() uint16 {
	for {
		if h := uint16(s.nextTSIH.Add(1)); h != 0 {
			return h
		}
	}
}

// ask seats a discovery session.
func (s *Server) ask(st *seat) {
	st.release = func() {
		s.mu.Lock()
		s.asking = slices.DeleteFunc(s.asking, func(other *seat) bool { return other == st })
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asking) >= maxAsking {
		s.asking[0].close()
		s.asking = s.asking[1:]
	}
	s.asking = append(s.asking, st)
}

// discoveryHost is the session.Host of a discovery session.
type discoveryHost struct{ *door }

func (discoveryHost) Peers() []*session.Session { return nil }
func (discoveryHost) Units() []*scsi.Unit       { return nil }

// targetHost is the session.Host of a normal session.
type targetHost struct {
	*Target
	*door
}

// reinstatementWait bounds how long a login waits for the session that it
// replaces: longer, and the initiator has given up the attempt.
const reinstatementWait = 8 * time.Second

// sit takes a seat on the strength of its grant. A session of the same initiator
// port is reinstated (RFC 7143 section 6.3.5): the old one is closed, and no
// call of it may still be under way, or an old write could land on a new one.
func (t *Target) sit(st *seat) error {
	deadline := time.NewTimer(reinstatementWait)
	defer deadline.Stop()
	for {
		old, err := t.trySit(st)
		if err != nil || old == nil {
			return err
		}
		old.close()
		select {
		case <-old.done:
		case <-deadline.C:
			return refusal{pdu.LoginServiceUnavailable, "the session to be reinstated still has I/O under way"}
		}
	}
}

// trySit returns the seat that is in the way, if there is one.
func (t *Target) trySit(st *seat) (*seat, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.removed || !t.holds(st.grant):
		return nil, refusal{pdu.LoginNotFound, "access was revoked during login"}
	case t.fencing(st.initiator):
		// Another grant, for any name, would admit it beside what is
		// still in flight.
		return nil, refusal{pdu.LoginServiceUnavailable, "the initiator is being fenced"}
	}
	for other := range t.seats {
		if other.initiator == st.initiator && other.isid == st.isid {
			return other, nil
		}
	}
	if most := t.settings.MaxSessions; most > 0 && len(t.seats) >= most {
		return nil, refusal{pdu.LoginTooManyConnections, fmt.Sprintf("target has its %d sessions", most)}
	}
	t.seats[st] = struct{}{}
	st.release = func() {
		t.mu.Lock()
		t.left(st)
		t.mu.Unlock()
	}
	return nil, nil
}
