// Package agent carries commands between the lab's harness and the machines
// it drives. A server runs on every machine of the lab (each guest, and the
// lab's own namespace); the harness holds a [Client] for each.
//
// The wire: one TCP or unix connection per operation. The client sends one
// JSON request behind a four-byte big-endian length, the server answers with
// one JSON reply in the same framing, and what follows belongs to the
// operation: frames for [Client.Run], a raw byte stream for [Client.Dial].
// Closing the connection ends the operation. There is no authentication: the
// control network exists only inside the lab's own network namespace.
package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
)

// MaxMessage bounds one request or reply, and with it the size of a file that
// [Client.ReadFile] and [Client.WriteFile] carry, in bytes.
const MaxMessage = 32 << 20

// Command says what to run and how.
type Command struct {
	Args []string // argv; Args[0] is looked up in PATH
	Env  []string // KEY=value, added to the agent's environment
	Dir  string   // working directory; empty: /
	TTY  bool     // run on a pseudo-terminal, stderr joined to stdout
	Log  string   // Start only: file that stdout and stderr are appended to
}

// Exit is how a process ended.
type Exit struct {
	Code   int            // exit status; -1 when a signal ended it
	Signal syscall.Signal // the signal, or 0
}

func (e Exit) String() string {
	if e.Signal != 0 {
		return "killed by " + e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Success reports whether the process ended with status 0.
func (e Exit) Success() bool { return e.Code == 0 && e.Signal == 0 }

// request is one operation; the fields that it does not use stay empty.
type request struct {
	Op      string
	Command Command        `json:",omitzero"`
	ID      int            `json:",omitzero"` // signal, wait: a started process
	Signal  syscall.Signal `json:",omitzero"`
	Path    string         `json:",omitzero"` // read, write, mkdir, remove
	Mode    fs.FileMode    `json:",omitzero"`
	Data    []byte         `json:",omitzero"`
	Network string         `json:",omitzero"` // dial, forward
	Address string         `json:",omitzero"`
	Listen  string         `json:",omitzero"` // forward: unix socket to listen on
	Watch   *Watch         `json:",omitzero"` // watch
}

// reply answers a request. Errno lets the client return an error that
// errors.Is knows, such as fs.ErrNotExist.
type reply struct {
	Error string        `json:",omitzero"`
	Errno syscall.Errno `json:",omitzero"`
	ID    int           `json:",omitzero"`
	Exit  Exit          `json:",omitzero"`
	Data  []byte        `json:",omitzero"`
}

// remoteError is an error that happened on the machine of the agent.
type remoteError struct {
	text  string
	errno syscall.Errno
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

func (r *reply) err() error {
	if r.Error == "" {
		return nil
	}
	return &remoteError{r.Error, r.Errno}
}

func failure(err error) reply {
	r := reply{Error: err.Error()}
	_ = errors.As(err, &r.Errno)
	return r
}

func writeMessage(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > MaxMessage {
		return fmt.Errorf("message of %d bytes is over the limit of %d", len(body), MaxMessage)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

func readMessage(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxMessage {
		return fmt.Errorf("message of %d bytes is over the limit of %d", n, MaxMessage)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}

// Frames of a running command: one byte of kind, four of length, the payload.
const (
	frameStdin  = 'i'
	frameEOF    = 'e' // end of stdin
	frameStdout = 'o'
	frameStderr = 'r'
	frameExit   = 'x' // payload: Exit as JSON
	frameSeen   = 's' // of a watcher: Observation as JSON
	maxFrame    = 64 << 10
)

func writeFrame(w io.Writer, kind byte, payload []byte) error {
	buf := append(make([]byte, 0, 5+len(payload)), kind)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(payload)))
	_, err := w.Write(append(buf, payload...))
	return err
}

func readFrame(r io.Reader, buf []byte) (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > uint32(len(buf)) {
		return 0, nil, fmt.Errorf("frame of %d bytes is over the limit of %d", n, len(buf))
	}
	_, err = io.ReadFull(r, buf[:n])
	return head[0], buf[:n], err
}
