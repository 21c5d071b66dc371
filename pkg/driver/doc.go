// Package driver is the CSI edge of csi-ietd (Container Storage Interface
// v1.13): the Identity, Controller and Node services and the gRPC server that
// carries them on a unix socket.
//
// The edge translates and checks; the work is done below it, by package volume
// on the storage node and by packages initiator and mount on the consumer.
// What every call needs is in one place each: fields are checked in
// validate.go, errors get their codes in status.go, and interceptors.go logs
// one line a call, without secrets.
package driver
