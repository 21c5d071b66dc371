// Package session is the full-feature phase of iSCSI (RFC 7143 sections 4 and
// 11): the command window, data transfer, task management, and what keeps a
// session alive or ends it.
//
// The life of a command: the connection's reader (conn.go) cuts it out of the
// stream, the window (window.go) says whether its turn has come, command.go has
// the SCSI layer decode it, dataout.go collects what the initiator sends (kept
// track of in inbound.go) and r2t.go asks for the rest, turn.go has it wait where
// its task attribute asks for it, transfer.go moves the data between device and
// connection, task.go ends it, and the outbox (outbox.go) sends its status. One
// that is to end before its time, by a task management function (tmf.go), another
// nexus or the session's end, is ended by abort.go. The reader never waits for a
// device: what may block runs on the session's workers (workers.go).
//
// Not here yet: several connections in a session, error recovery levels above
// 0, and ACA.
package session

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// Limits of every session.
const (
	// queueDepth is how many commands an initiator may have under way: the
	// width of the command window.
	queueDepth = 128
	// immediateDepth is how many immediate SCSI commands may be under way
	// beside them.
	immediateDepth = 16
	// managementDepth is how many task management functions may wait for
	// their tasks to end.
	managementDepth = 32
	// workerLimit is how many device calls of one session run at once.
	workerLimit = 16
)

// Why a session ended.
var (
	// ErrLogout: the initiator logged out.
	ErrLogout = errors.New("logged out")
	// ErrPeerGone: the initiator did not answer a NOP-In.
	ErrPeerGone = errors.New("initiator does not answer")
	// ErrProtocol: the initiator sent what the session cannot go on after.
	ErrProtocol = errors.New("protocol error")
)

// Config is what all sessions of a server share.
type Config struct {
	// ReadBudget bounds the memory for data on its way to initiators,
	// WriteBudget for data from them. They are two, because the workers
	// that empty the second may wait for the first.
	ReadBudget, WriteBudget *Budget
	// SessionBudget is one session's part of each, in bytes.
	SessionBudget int
	// NopInterval is the silence after which the initiator is asked for a
	// sign of life, NopTimeout how long it may take to give one.
	NopInterval, NopTimeout time.Duration
	// DataTimeout is how long an initiator may keep a task waiting for
	// Data-Out; 0 is for ever.
	DataTimeout time.Duration
	// WriteTimeout is how long the socket may take no byte.
	WriteTimeout time.Duration
}

// Info is what login settled about a session.
type Info struct {
	Target, Initiator string
	Discovery         bool
	ISID              pdu.ISID
	TSIH, CID         uint16
	Params            text.Params
	CmdSN             uint32
}

// Host is what a session asks of the target it belongs to.
type Host interface {
	// Peers returns the target's sessions, this one among them.
	Peers() []*Session
	// Units returns the target's logical units.
	Units() []*scsi.Unit
	// SendTargets returns the targets that the initiator may log in to, in
	// the form of RFC 7143 appendix C; name is a target name, or empty for
	// all. ok is false where the request is not allowed.
	SendTargets(name string) (pairs []text.Pair, ok bool)
}

// Session is one session in full-feature phase, with its only connection.
type Session struct {
	Info
	Since time.Time

	cfg   Config
	log   *slog.Logger
	host  Host
	units *scsi.Inventory
	nexus *scsi.Nexus // nil in a discovery session

	conn    net.Conn
	reader  *pdu.Reader
	outbox  *outbox
	window  *window
	reads   *account
	writes  *account
	workers workers
	granter granter
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}

	swept   time.Time           // reader: when sweep looked last
	leaving bool                // reader: a Logout Request was accepted
	pinged  bool                // reader: a NOP-In of ours is unanswered
	early   map[uint32]*pdu.PDU // reader: arrived before their turn
	text    *exchange           // reader: the text exchange under way
	delayed []delayed           // reader: functions that wait for commands

	earlyBytes int         // reader: the data in early
	loggedOut  atomic.Bool // the answer to a Logout Request is on its way
	// maxSend is the initiator's MaxRecvDataSegmentLength, in bytes, which
	// it may change; textBusy: the answer that says so is not out yet.
	maxSend  atomic.Uint32
	textBusy atomic.Bool

	mu        sync.Mutex
	tasks     map[uint32]*task  // by initiator task tag
	bursts    map[uint32]*burst // by target transfer tag: solicited data under way
	nextTTT   uint32
	immediate int // immediate SCSI commands under way
	managing  int // task management functions under way

	stats Stats
}

// Stats are totals since login.
type Stats struct{ Commands, Reads, Writes, BytesRead, BytesWritten atomic.Uint64 }

func (s *Stats) count(k scsi.Kind) {
	s.Commands.Add(1)
	switch k {
	case scsi.Read:
		s.Reads.Add(1)
	case scsi.Write:
		s.Writes.Add(1)
	}
}

// New makes the session that a login ended in. The reader holds what the
// initiator sent after its last Login Request; statSN is the next one.
func New(cfg Config, info Info, host Host, units *scsi.Inventory, nexus *scsi.Nexus, conn net.Conn, reader *pdu.Reader, statSN uint32, log *slog.Logger) *Session {
	s := &Session{
		Info: info, Since: time.Now(), cfg: cfg, log: log, host: host, units: units, nexus: nexus,
		conn: conn, reader: reader, window: newWindow(info.CmdSN, queueDepth),
		reads:  &account{budget: cfg.ReadBudget, limit: cfg.SessionBudget},
		writes: &account{budget: cfg.WriteBudget, limit: cfg.SessionBudget},
		done:   make(chan struct{}), early: map[uint32]*pdu.PDU{},
		tasks: map[uint32]*task{}, bursts: map[uint32]*burst{},
	}
	s.maxSend.Store(info.Params.MaxSendDataSegmentLength)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	digests := pdu.Digests{Header: info.Params.HeaderDigest, Data: info.Params.DataDigest}
	s.outbox = newOutbox(conn, s.window, statSN, cfg.WriteTimeout, digests)
	reader.SetMaxData(int(info.Params.MaxRecvDataSegmentLength))
	reader.SetDigests(digests)
	return s
}

// Stats are the session's counters.
func (s *Session) Stats() *Stats { return &s.stats }

// Conn is the session's connection.
func (s *Session) Conn() net.Conn { return s.conn }

// Done is closed when the session has ended and every device call of it has
// returned.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close ends the session; Done tells when it has ended.
func (s *Session) Close() { _ = s.conn.Close() }

// Send queues a PDU that is no answer to a command, such as the last Login
// Response.
func (s *Session) Send(h pdu.BHS, data []byte) { s.outbox.send(h, data, nil, takesStatSN) }

// Serve runs the session until it ends, says why, and closes Done. It waits
// for everything that the session started.
func (s *Session) Serve() error {
	sent := make(chan error, 1)
	go func() {
		err := s.outbox.run()
		_ = s.conn.Close() // the reader must notice
		sent <- err
	}()
	err := s.read()
	if errors.Is(err, ErrProtocol) {
		s.outbox.finish() // let the Reject out that says what was wrong
		sent <- <-sent
	}
	s.shut()
	sendErr := <-sent
	s.granter.wait() // it may give the workers something to do
	s.workers.wait()
	if s.nexus != nil {
		s.nexus.Detach()
	}
	close(s.done)
	switch {
	case s.loggedOut.Load():
		return ErrLogout
	case sendErr != nil && errors.Is(err, net.ErrClosed):
		return sendErr // the reader only noticed what the writer met
	}
	return err
}

// shut ends what is under way; workers end by themselves.
func (s *Session) shut() {
	_ = s.conn.Close()
	s.cancel()
	s.outbox.close()
	s.reads.close()
	s.writes.close()
	s.abort(&abortion{}, func(*task) bool { return true })
}
