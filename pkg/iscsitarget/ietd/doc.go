// Package ietd is the iSCSI Enterprise Target's daemon over the target of this
// repository: a configuration file becomes targets and logical units, which ietadm and a
// new reading of the file change while they are served.
//
// What is served is a [Daemon]'s; the process around it (options, pid file, signals,
// logs) is the caller's. The messages of ietd(8) are logged where their causes are, see
// messages.go.
package ietd
