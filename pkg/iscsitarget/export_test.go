package iscsitarget

import "net"

// MemoryInUse is what both budgets have given out, in bytes.
func (s *Server) MemoryInUse() int {
	return s.sessions.ReadBudget.Used() + s.sessions.WriteBudget.Used()
}

// Limits of the server.
const (
	MaxLogins         = maxLogins
	MaxAsking         = maxAsking
	ReinstatementWait = reinstatementWait
)

// Connections counts the open connections, and those that have not logged in.
func (s *Server) Connections() (all, logins int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), len(s.logins)
}

// Allowed says whether an address may connect.
func (s *Server) Allowed(a net.Addr) bool { return s.allowed(a) }
