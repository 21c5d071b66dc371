// Package session is the full-feature phase of iSCSI (RFC 7143 sections 4 and
// 11): the command window, data transfer, task management, and what keeps a
// session alive or ends it.
//
// A session (session.go) has one connection or several (connection.go), on which
// its commands come in one numbered sequence.
//
// The life of a command: the reader of its connection (reader.go) cuts it out of
// the stream, order.go has it wait for those that were sent before it, as the
// window (window.go) says, command.go has the SCSI layer decode it, dataout.go
// collects what the initiator sends (kept track of in inbound.go) and r2t.go asks
// for the rest, turn.go has it wait where
// its task attribute asks for it, transfer.go moves the data between device and
// connection, task.go ends it, and the outbox (outbox.go) sends its status, over
// the socket (socket.go). One that is to end before its time, by a task management function (tmf.go), another
// nexus or the session's end, is ended by abort.go.
//
// What needs no waiting the reader does itself: it reads what is cached, and writes to
// caches (inplace.go says what becomes of it where it has to wait after all). When it
// has done all that it has in hand the answers leave together. It looks after reads that are
// under way (attend.go): short ones of what is on its way into memory (fetch.go), and what a
// device past the page cache reads by itself (background.go). What else may block runs on
// the session's workers (workers.go).
//
// What was sent is sent again where it did not arrive (snack.go), and tasks outlive
// their connection (recovery.go), at error recovery levels 1 and 2. What responses
// on several connections owe each other is in fence.go.
package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// Limits of every session.
const (
	// QueueDepth is how many commands an initiator may have under way, the
	// width of the command window, where [Config] says nothing else.
	QueueDepth = 128
	// immediateDepth is how many immediate SCSI commands may be under way
	// beside them.
	immediateDepth = 16
	// managementDepth is how many task management functions may wait for
	// their tasks to end.
	managementDepth = 32
	// WorkerLimit is how many device calls of one session run at once, where
	// [Config] says nothing else.
	WorkerLimit = 16
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
	// sign of life, NopTimeout how long it may take to give one. One that is
	// not positive is for ever.
	NopInterval, NopTimeout time.Duration
	// DataTimeout is how long an initiator may keep a task waiting for
	// Data-Out; 0 is for ever.
	DataTimeout time.Duration
	// WriteTimeout is how long the socket may take no byte.
	WriteTimeout time.Duration
	// QueueDepth is the width of the command window, Workers how many device
	// calls of the session run at once, beside short reads of what is on its way
	// into memory; 0 leaves either to the package.
	QueueDepth, Workers int
	// MaxSend bounds the data segments that are sent, in bytes, below what the
	// initiator takes; 0 does not.
	MaxSend uint32
	// TraceText is told of every PDU of a text exchange, where it is not nil.
	TraceText func(Traced)
}

// Traced is a PDU of a text exchange, valid during the call alone.
type Traced struct {
	Request   bool
	BHS       pdu.BHS
	AHS, Data []byte
	ExpCmdSN  uint32 // the CmdSN that was expected next
}

// mostSent is the longest data segment to send to an initiator that takes declared
// bytes.
func (c Config) mostSent(declared uint32) uint32 {
	if c.MaxSend == 0 {
		return declared
	}
	return min(declared, c.MaxSend)
}

// Info is what login settled about a session.
type Info struct {
	Target, Initiator string
	Discovery         bool
	ISID              pdu.ISID
	TSIH              uint16
	Params            text.Params // of the leading connection
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

// Session is one session in full-feature phase: what its connections share.
type Session struct {
	Info
	Since time.Time

	cfg   Config
	log   *slog.Logger
	host  Host
	units *scsi.Inventory
	nexus *scsi.Nexus // nil in a discovery session
	ended func()      // called when nothing of the session is left

	window     *window
	reads      *account
	writes     *account
	workers    workers
	granter    granter
	fetchers   fetchers
	background sync.WaitGroup // reads that devices do
	readers    sync.WaitGroup // goroutines that read, or have and are in a call still
	ctx        context.Context
	cancel     context.CancelFunc
	done       chan struct{}
	quit       chan struct{} // closed by Close

	// fenceMu comes before mu.
	fenceMu sync.Mutex
	fences  []*fence    // the first is raised
	fencing atomic.Bool // there are any

	// order is held while requests are taken in, each in its turn: it comes
	// before mu. What ends tasks does not wait for it.
	order      sync.Mutex
	early      map[uint32]*held // arrived before their turn, by CmdSN
	earlyBytes int              // the data in early
	delayed    []delayed        // functions that wait for commands
	begun      []begun          // commands taken in and not gone on with

	mu          sync.Mutex
	connections []*Connection
	lost        []*Connection     // whose tasks wait for others
	seating     int               // connections that are to come
	closing     bool              // it is to end, and takes no further connection
	over        bool              // no connection is left, and none comes
	tasks       map[uint32]*task  // by initiator task tag
	bursts      map[uint32]*burst // by target transfer tag: solicited data under way
	acks        map[uint32]*task  // by target transfer tag: Data-In to be acknowledged
	nextTTT     uint32
	immediate   int // immediate SCSI commands under way
	managing    int // task management functions under way

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

// New makes the session that a login ended in; it begins with its first connection,
// which [Session.Connect] adds. cmdSN is the first command's; ended is called when
// nothing of the session is left.
func New(cfg Config, info Info, host Host, units *scsi.Inventory, nexus *scsi.Nexus, cmdSN uint32, ended func(), log *slog.Logger) *Session {
	s := &Session{
		Info: info, Since: time.Now(), cfg: cfg, log: log, host: host, units: units, nexus: nexus, ended: ended,
		window: newWindow(cmdSN, cmp.Or(cfg.QueueDepth, QueueDepth)),
		reads:  &account{budget: cfg.ReadBudget, limit: cfg.SessionBudget},
		writes: &account{budget: cfg.WriteBudget, limit: cfg.SessionBudget},
		done:   make(chan struct{}), quit: make(chan struct{}), early: map[uint32]*held{},
		tasks: map[uint32]*task{}, bursts: map[uint32]*burst{}, acks: map[uint32]*task{},
	}
	s.fetchers.of = map[[8]byte]*fetcher{}
	s.workers.limit = cmp.Or(cfg.Workers, WorkerLimit)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Stats are the session's counters.
func (s *Session) Stats() *Stats { return &s.stats }

// Done is closed when the session has ended and every device call of it has
// returned.
func (s *Session) Done() <-chan struct{} { return s.done }

// Connections are those that the session has now, in the order in which they came.
func (s *Session) Connections() []*Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.connections)
}

// Close ends the session; Done tells when it has ended.
func (s *Session) Close() {
	s.close()
	for _, c := range s.Connections() {
		_ = c.conn.Close()
	}
}

// Disconnect closes the connection of that CID, if there is one.
func (s *Session) Disconnect(cid uint16) {
	for _, c := range s.Connections() {
		if c.CID == cid {
			_ = c.conn.Close()
		}
	}
}

// closeBehind ends the session, this connection behind what it has to send.
func (c *Connection) closeBehind() {
	c.s.close()
	c.outbox.finish()
	for _, other := range c.s.Connections() {
		if other != c {
			_ = other.conn.Close()
		}
	}
}

// close has the session take no further connection, and keep nothing for one.
func (s *Session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.closing = true
		close(s.quit)
	}
}

// finish is the end of a session whose last connection has gone.
func (s *Session) finish() {
	s.cancel()
	s.reads.close()
	s.writes.close()
	s.abort(&abortion{}, anyTask)
	if s.nexus != nil {
		s.nexus.LoseACA()
	}
	s.granter.wait() // it may give the workers something to do, as may they:
	s.background.Wait()
	s.fetchers.wait()
	s.workers.wait()
	s.readers.Wait()
	if s.nexus != nil {
		s.nexus.Detach()
	}
	close(s.done)
	s.ended()
}
