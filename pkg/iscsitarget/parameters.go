package iscsitarget

import (
	"fmt"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/session"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// SessionParameters are what a target wants of its sessions: the keys of RFC 7143
// section 13, lengths in bytes and times in seconds, and what no key says. An
// initiator that does not offer a key gets the RFC's default for it.
type SessionParameters struct {
	// HeaderDigest and DataDigest take CRC32C from an initiator that prefers it.
	HeaderDigest, DataDigest  bool
	MaxConnections            int // 1 to 65535
	InitialR2T, ImmediateData bool
	// MaxRecvDataSegmentLength, MaxBurstLength and FirstBurstLength are at least
	// 512. The first and the last end at [MaxSegment], the other at 2^24 - 1.
	MaxRecvDataSegmentLength, MaxBurstLength, FirstBurstLength int
	// MaxXmitDataSegmentLength bounds what is sent below what the initiator takes:
	// 512 to 2^24 - 1.
	MaxXmitDataSegmentLength             int
	MaxOutstandingR2T                    int // 1 to 65535
	DefaultTime2Wait, DefaultTime2Retain int // 0 to 3600
	ErrorRecoveryLevel                   int // 0 to 2
	// QueuedCommands is how many commands an initiator may have under way, Workers
	// how many of those that wait for a device run at once, beside short reads
	// through the page cache: 1 to 256 and 1 to 128.
	QueuedCommands, Workers int
	// NopInterval is the silence after which an initiator is pinged; one that does
	// not answer within NopTimeout is given up. Negative is for ever, 0 the server's.
	NopInterval, NopTimeout time.Duration
}

// MaxSegment is the longest data segment that is taken in one piece, in bytes.
const MaxSegment = 256 << 10

// DefaultSessionParameters are those of a target that says nothing else.
func DefaultSessionParameters() SessionParameters {
	p := settled(text.Defaults())
	p.MaxXmitDataSegmentLength = 1<<24 - 1
	p.QueuedCommands, p.Workers = session.QueueDepth, session.WorkerLimit
	return p
}

// check refuses what is out of its range.
func (p SessionParameters) check() error {
	for _, k := range []struct {
		name               string
		value, least, most int
	}{
		{"MaxConnections", p.MaxConnections, 1, 65535},
		{"MaxRecvDataSegmentLength", p.MaxRecvDataSegmentLength, 512, MaxSegment},
		{"MaxXmitDataSegmentLength", p.MaxXmitDataSegmentLength, 512, 1<<24 - 1},
		{"MaxBurstLength", p.MaxBurstLength, 512, 1<<24 - 1},
		{"FirstBurstLength", p.FirstBurstLength, 512, MaxSegment},
		{"MaxOutstandingR2T", p.MaxOutstandingR2T, 1, 65535},
		{"DefaultTime2Wait", p.DefaultTime2Wait, 0, 3600},
		{"DefaultTime2Retain", p.DefaultTime2Retain, 0, 3600},
		{"ErrorRecoveryLevel", p.ErrorRecoveryLevel, 0, 2},
		{"QueuedCommands", p.QueuedCommands, 1, 256},
		{"Workers", p.Workers, 1, 128},
	} {
		if k.value < k.least || k.value > k.most {
			return fmt.Errorf("%s %d, want %d to %d: %w", k.name, k.value, k.least, k.most, ErrInvalid)
		}
	}
	return nil
}

// wants is the same for the login phase. What is sent is kept for recovery, a
// sequence at least, only where there is the memory for it.
func (p SessionParameters) wants(sessionBudget int) text.Params {
	own := text.Defaults()
	own.HeaderDigest, own.DataDigest = p.HeaderDigest, p.DataDigest
	own.MaxConnections = uint32(p.MaxConnections)
	own.InitialR2T, own.ImmediateData = p.InitialR2T, p.ImmediateData
	own.MaxRecvDataSegmentLength = uint32(p.MaxRecvDataSegmentLength)
	own.MaxBurstLength, own.FirstBurstLength = uint32(p.MaxBurstLength), uint32(p.FirstBurstLength)
	own.MaxOutstandingR2T = uint32(p.MaxOutstandingR2T)
	own.DefaultTime2Wait, own.DefaultTime2Retain = uint32(p.DefaultTime2Wait), uint32(p.DefaultTime2Retain)
	own.ErrorRecoveryLevel = uint32(p.ErrorRecoveryLevel)
	if sessionBudget < 4*p.MaxBurstLength {
		own.ErrorRecoveryLevel = 0
	}
	return own
}

// settled is what a session has, in the same terms.
func settled(p text.Params) SessionParameters {
	return SessionParameters{
		HeaderDigest: p.HeaderDigest, DataDigest: p.DataDigest,
		MaxConnections: int(p.MaxConnections), InitialR2T: p.InitialR2T, ImmediateData: p.ImmediateData,
		MaxRecvDataSegmentLength: int(p.MaxRecvDataSegmentLength), MaxXmitDataSegmentLength: int(p.MaxSendDataSegmentLength),
		MaxBurstLength: int(p.MaxBurstLength), FirstBurstLength: int(p.FirstBurstLength), MaxOutstandingR2T: int(p.MaxOutstandingR2T),
		DefaultTime2Wait: int(p.DefaultTime2Wait), DefaultTime2Retain: int(p.DefaultTime2Retain),
		ErrorRecoveryLevel: int(p.ErrorRecoveryLevel),
	}
}

// over is the configuration of a target's sessions, over the server's.
func (p SessionParameters) over(c session.Config) session.Config {
	c.NopInterval = orDefault(p.NopInterval, c.NopInterval)
	c.NopTimeout = orDefault(p.NopTimeout, c.NopTimeout)
	c.QueueDepth, c.Workers, c.MaxSend = p.QueuedCommands, p.Workers, uint32(p.MaxXmitDataSegmentLength)
	return c
}
