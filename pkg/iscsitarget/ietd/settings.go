package ietd

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
)

// settingsOf is what a stanza says of its target, with ietd.conf's defaults for the
// rest.
func (d *Daemon) settingsOf(t *ietconf.Target) iscsitarget.TargetSettings {
	return iscsitarget.TargetSettings{
		Alias: t.Alias, MaxSessions: t.MaxSessions, Sessions: parametersOf(t),
		Admit:   func(v iscsitarget.Visitor) bool { return d.admits(t.Name, v) },
		Portals: func(local netip.AddrPort) []string { return d.portalsOf(t.Name, local) },
	}
}

// parametersOf is a stanza's session parameters.
func parametersOf(t *ietconf.Target) *iscsitarget.SessionParameters {
	v := values{t}
	return &iscsitarget.SessionParameters{
		HeaderDigest: v.crc32c("HeaderDigest"), DataDigest: v.crc32c("DataDigest"),
		MaxConnections: v.number("MaxConnections"),
		InitialR2T:     v.yes("InitialR2T"), ImmediateData: v.yes("ImmediateData"),
		MaxRecvDataSegmentLength: min(v.number("MaxRecvDataSegmentLength"), iscsitarget.MaxSegment),
		MaxXmitDataSegmentLength: v.number("MaxXmitDataSegmentLength"),
		MaxBurstLength:           v.number("MaxBurstLength"),
		FirstBurstLength:         min(v.number("FirstBurstLength"), iscsitarget.MaxSegment),
		MaxOutstandingR2T:        v.number("MaxOutstandingR2T"),
		DefaultTime2Wait:         v.number("DefaultTime2Wait"), DefaultTime2Retain: v.number("DefaultTime2Retain"),
		ErrorRecoveryLevel: v.number("ErrorRecoveryLevel"),
		QueuedCommands:     v.number("QueuedCommands"), Workers: v.number("Wthreads"),
		NopInterval: v.nopInterval(), NopTimeout: v.nopTimeout(),
	}
}

// values reads the parameters of a stanza, which the parser has checked.
type values struct{ *ietconf.Target }

func (v values) of(name string) string {
	if value, ok := v.Parameters[name]; ok {
		return value
	}
	return ietconf.Default(name)
}

func (v values) number(name string) int {
	n, err := strconv.Atoi(v.of(name))
	if err != nil {
		panic("ietd: parameter " + name + " is no number") // the parser has numbers alone
	}
	return n
}

func (v values) yes(name string) bool { return v.of(name) == "Yes" }

// crc32c: a digest that is listed is taken where the initiator prefers it. None is
// always taken, as ietd.conf(5) says.
func (v values) crc32c(name string) bool { return strings.Contains(v.of(name), "CRC32C") }

// nopInterval: 0 is off.
func (v values) nopInterval() time.Duration {
	if n := v.number("NOPInterval"); n > 0 {
		return time.Duration(n) * time.Second
	}
	return -1
}

// nopTimeout: 0, or one above the interval, is the interval.
func (v values) nopTimeout() time.Duration {
	n, interval := v.number("NOPTimeout"), v.number("NOPInterval")
	if n == 0 || n > interval {
		n = interval
	}
	if n == 0 {
		return -1
	}
	return time.Duration(n) * time.Second
}
