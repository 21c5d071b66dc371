// Package ietadm is the way from ietadm(8) to a running target: a request and its answer
// in JSON, one of each for a connection, over a socket in the file system.
//
// Who may ask is told by the socket's mode and, since a descriptor can be passed on, by
// the credentials of the peer: root, the user that the target runs as, and the members of
// one group.
package ietadm

import (
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// DefaultSocket is where the target listens and ietadm asks.
const DefaultSocket = "/run/csi-ietd/ietadm.sock"

// Op is what is asked for.
type Op string

// The operations of ietadm(8), and Save, which the old one lacked.
const (
	New    Op = "new"
	Delete Op = "delete"
	Update Op = "update"
	Show   Op = "show"
	Save   Op = "save"
)

// Request is ietadm's command line: a nil number was not given.
type Request struct {
	Op  Op      `json:"op"`
	TID *uint32 `json:"tid,omitempty"` // target
	SID *uint64 `json:"sid,omitempty"` // session
	CID *uint32 `json:"cid,omitempty"` // connection
	LUN *uint64 `json:"lun,omitempty"`
	// User says that it is about accounts.
	User bool `json:"user,omitempty"`
	// Params is what --params had, "key=value,...".
	Params string `json:"params,omitempty"`
	// Redirect is a portal, empty for an end of it.
	Redirect *string `json:"redirect,omitempty"`
	// Proc asks for the old status: "volume" or "session".
	Proc string `json:"proc,omitempty"`
	// JSON asks for Answer.Data in place of Answer.Text.
	JSON bool `json:"json,omitempty"`
}

// Answer is what came of a request.
type Answer struct {
	// Errno is 0 for success; Message says what else.
	Errno   unix.Errno `json:"errno,omitempty"`
	Message string     `json:"message,omitempty"`
	// Text is what ietadm prints, Data the same for programs.
	Text string          `json:"text,omitempty"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Error is an answer that is no success.
type Error struct {
	Errno   unix.Errno
	Message string
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the errno, for errors.Is.
func (e *Error) Unwrap() error { return e.Errno }

// Errorf makes an error with the exit status that ietadm is to have for it.
func Errorf(errno unix.Errno, format string, args ...any) error {
	return &Error{errno, fmt.Sprintf(format, args...)}
}

// answerOf is the answer that tells of an error.
func answerOf(err error) Answer {
	var e *Error
	if errors.As(err, &e) {
		return Answer{Errno: e.Errno, Message: err.Error()}
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		errno = unix.EIO
	}
	return Answer{Errno: errno, Message: err.Error()}
}

// ExitStatus is ietadm's: the negative errno in a byte, as the old one had it.
func (a Answer) ExitStatus() int { return int(byte(-int(a.Errno))) }

// StatusOf is ietadm's exit status where it could not ask.
func StatusOf(err error) int { return answerOf(err).ExitStatus() }
