package iscsitarget

import (
	"sync"
	"sync/atomic"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/session"
)

// Stats is a snapshot of a server's figures. Those called totals count since
// NewServer and never fall.
type Stats struct {
	// Listeners are the calls of Serve that accept connections now.
	Listeners int
	// Connections are open now, logged in or not.
	Connections int
	// ConnectionsAccepted is a total of those that were let begin a login.
	ConnectionsAccepted uint64
	// ConnectionsDenied is a total of those that were closed unread,
	// because their address is not in AllowFrom.
	ConnectionsDenied uint64
	// ConnectionsDropped is a total of those that were closed unread for
	// want of room, or after Shutdown.
	ConnectionsDropped uint64
	// DiscoverySessions are open now.
	DiscoverySessions int
	// Logins is a total of those that succeeded, discovery among them;
	// LoginsRefused of those that came to nothing, for each of [Refusals].
	Logins        uint64
	LoginsRefused map[Refusal]uint64
	// Targets are ordered by name.
	Targets []TargetStats
}

// TargetStats are the figures of one target.
type TargetStats struct {
	Name string
	// Sessions are open now.
	Sessions int
	// Traffic is a total since AddTarget, of sessions that ended too.
	Traffic Traffic
	// LostStages are the stagings that get errors until they are staged
	// anew, because writes that they were told of are lost.
	LostStages int
}

// Traffic counts what initiators asked for and what was moved.
type Traffic struct {
	// Commands are SCSI commands of every kind, Reads and Writes those that
	// read and write the medium through the data phase.
	Commands, Reads, Writes uint64
	// BytesRead went to initiators, BytesWritten came from them.
	BytesRead, BytesWritten uint64
}

func (t Traffic) plus(s *session.Stats) Traffic {
	return Traffic{
		Commands: t.Commands + s.Commands.Load(),
		Reads:    t.Reads + s.Reads.Load(), Writes: t.Writes + s.Writes.Load(),
		BytesRead: t.BytesRead + s.BytesRead.Load(), BytesWritten: t.BytesWritten + s.BytesWritten.Load(),
	}
}

// counters are the totals of a server.
type counters struct {
	accepted, denied, dropped, logins atomic.Uint64

	mu      sync.Mutex
	refused map[Refusal]uint64
}

func (c *counters) refuse(r Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = map[Refusal]uint64{}
	}
	c.refused[r]++
}

// refusals has an entry for every reason that there is.
func (c *counters) refusals() map[Refusal]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[Refusal]uint64{}
	for _, r := range Refusals {
		all[r] = c.refused[r]
	}
	return all
}

// Stats reads the server's figures. It waits for no device.
func (s *Server) Stats() Stats {
	out := Stats{
		ConnectionsAccepted: s.counters.accepted.Load(), ConnectionsDenied: s.counters.denied.Load(),
		ConnectionsDropped: s.counters.dropped.Load(),
		Logins:             s.counters.logins.Load(), LoginsRefused: s.counters.refusals(),
	}
	s.mu.Lock()
	out.Listeners, out.Connections, out.DiscoverySessions = s.listeners, len(s.conns), len(s.asking)
	s.mu.Unlock()
	for _, t := range s.Targets() {
		out.Targets = append(out.Targets, t.stats())
	}
	return out
}

func (t *Target) stats() TargetStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := TargetStats{Name: t.name, Traffic: t.past}
	for seat := range t.seats {
		if peer := seat.session.Load(); peer != nil {
			out.Sessions++
			out.Traffic = out.Traffic.plus(peer.Stats())
		}
	}
	for _, u := range t.luns {
		out.LostStages += u.LostStages()
	}
	return out
}

// left keeps what a session that ends has counted. t.mu is held.
func (t *Target) left(st *seat) {
	delete(t.seats, st)
	if peer := st.session.Load(); peer != nil {
		t.past = t.past.plus(peer.Stats())
	}
}
