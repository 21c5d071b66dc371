// Package ietdconf has what the tests' configurations of ietd share.
package ietdconf

// Generous are directives of a stanza that have the target take what an initiator wants,
// up to what csi-ietd takes by itself; ietd.conf's defaults are of 2004.
const Generous = `
	MaxConnections 8
	InitialR2T No
	ImmediateData Yes
	MaxRecvDataSegmentLength 262144
	MaxXmitDataSegmentLength 16777215
	MaxBurstLength 1048576
	FirstBurstLength 65536
	MaxOutstandingR2T 8
	HeaderDigest None,CRC32C
	DataDigest None,CRC32C
	QueuedCommands 128
	ErrorRecoveryLevel 2
	Wthreads 16
`
