// Package iscsitarget is an iSCSI target (RFC 7143) that runs in the caller's
// process: no kernel target, no daemon, no privileges.
//
//	s := iscsitarget.NewServer(iscsitarget.Options{})
//	t, err := s.AddTarget(iscsitarget.TargetConfig{Name: "iqn.2026-11.io.example:disk"})
//	err = t.AddLUN(0, iscsitarget.LUNConfig{Device: dev, ...})
//	err = t.Permit(iscsitarget.Grant{Initiator: "iqn.2026-11.io.example:host"})
//	err = s.Serve(ctx, listener)
//
// The package imports no Kubernetes, gRPC, CSI or Prometheus.
package iscsitarget

import (
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// TargetConfig describes a target node to add.
type TargetConfig struct {
	// Name is the iSCSI name, iqn., eui. or naa. (RFC 7143 section 4.2.7).
	Name  string
	Alias string
	// MaxSessions bounds the normal sessions; 0 means no bound but the
	// server's.
	MaxSessions int
}

// LUNConfig describes a logical unit to add to a target.
type LUNConfig struct {
	Device blockdev.Device
	// Vendor (8 characters at most), Product (16) and Revision (4) go into
	// standard INQUIRY data; Serial into VPD page 80h.
	Vendor, Product, Revision, Serial string
	// NAA is the designator of VPD page 83h, 0 for none.
	NAA uint64
	// T10ID follows the vendor in the T10 designator of VPD page 83h.
	T10ID string
	// ReadOnly refuses writes with DATA PROTECT.
	ReadOnly bool
	// WriteCache makes writes volatile until SYNCHRONIZE CACHE or FUA;
	// without it every write is stable before it is acknowledged.
	WriteCache bool
}

// Grant is one initiator's right to log in to a target.
type Grant struct {
	// Initiator is the initiator's iSCSI name; empty admits any name.
	Initiator string
	// ReadOnly refuses this initiator's writes.
	ReadOnly bool
	// CHAP is what the initiator must prove; nil admits it without.
	CHAP *CHAP
}

// CHAP are the credentials of one grant (RFC 7143 section 12.1.3).
type CHAP struct {
	// User is the CHAP_N that the initiator must give. With StageNonce the
	// initiator gives User, a "+" and 1 to 64 letters and digits that it
	// renews on every staging and repeats on every reconnect.
	User       string
	Secret     string
	StageNonce bool
	// MutualUser and MutualSecret are what the target answers a mutual
	// challenge with; empty refuses one.
	MutualUser, MutualSecret string
}

// SessionStatus is a snapshot of one session.
type SessionStatus struct {
	Target, Initiator string
	// ISID is 12 hexadecimal digits.
	ISID        string
	TSIH        uint16
	Discovery   bool
	Connections []ConnectionStatus
	// Since is when login ended.
	Since time.Time
	// Commands and the byte counts are totals since login.
	Commands, BytesRead, BytesWritten uint64
}

// ConnectionStatus is a snapshot of one connection.
type ConnectionStatus struct {
	CID                      uint16
	Remote, Local            string
	HeaderDigest, DataDigest bool
}
