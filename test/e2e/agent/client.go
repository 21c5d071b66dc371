package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
)

// Client drives one agent. It is safe for concurrent use.
type Client struct {
	// Connect opens a connection to the agent.
	Connect func(ctx context.Context) (net.Conn, error)
}

// Streams are the standard streams of a command; nil is the null device.
type Streams struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// begin sends a request and reads its reply. The connection is closed when
// ctx is done; the caller calls end, and closes the connection itself.
func (c *Client) begin(ctx context.Context, req *request) (conn net.Conn, answer reply, end func() bool, err error) {
	conn, err = c.Connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, reply{}, nil, err
	}
	end = context.AfterFunc(ctx, func() { conn.Close() })
	err = writeMessage(conn, req)
	if err == nil {
		err = readMessage(conn, &answer)
	}
	if err == nil {
		err = answer.err()
	}
	if err != nil {
		end()
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, reply{}, nil, err
	}
	return conn, answer, end, nil
}

// call is a request with nothing behind its reply.
func (c *Client) call(ctx context.Context, req *request) (reply, error) {
	conn, answer, end, err := c.begin(ctx, req)
	if err != nil {
		return reply{}, err
	}
	end()
	return answer, conn.Close()
}

// Run executes a command to its end. When ctx is done first, the command and
// what it has started are killed and the context's cause returned. A command that fails is
// no error here: its Exit says so.
func (c *Client) Run(ctx context.Context, cmd Command, std Streams) (Exit, error) {
	conn, _, end, err := c.begin(ctx, &request{Op: "run", Command: cmd})
	if err != nil {
		return Exit{}, err
	}
	defer end()
	defer conn.Close()
	if std.Stdin == nil {
		std.Stdin = bytes.NewReader(nil)
	}
	go sendInput(conn, std.Stdin) // may outlive Run in a Read of the caller's stdin; its write then fails
	exit, err := receiveOutput(conn, std)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	return exit, err
}

func sendInput(conn net.Conn, stdin io.Reader) {
	buf := make([]byte, maxFrame)
	for {
		n, err := stdin.Read(buf)
		if n > 0 && writeFrame(conn, frameStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = writeFrame(conn, frameEOF, nil)
			return
		}
	}
}

func receiveOutput(conn net.Conn, std Streams) (Exit, error) {
	in, buf := bufio.NewReaderSize(conn, maxFrame), make([]byte, maxFrame)
	for {
		kind, payload, err := readFrame(in, buf)
		if err != nil {
			return Exit{}, fmt.Errorf("connection to the agent lost: %w", err)
		}
		switch kind {
		case frameStdout:
			err = writeTo(std.Stdout, payload)
		case frameStderr:
			err = writeTo(std.Stderr, payload)
		case frameExit:
			var exit Exit
			err = json.Unmarshal(payload, &exit)
			return exit, err
		default:
			err = fmt.Errorf("unexpected frame %q", kind)
		}
		if err != nil {
			return Exit{}, err
		}
	}
}

func writeTo(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// Process is a background process on the agent's machine.
type Process struct {
	client *Client
	id     int
}

// Start begins a background process; its output goes to cmd.Log, a file on
// the agent's machine.
func (c *Client) Start(ctx context.Context, cmd Command) (*Process, error) {
	answer, err := c.call(ctx, &request{Op: "start", Command: cmd})
	if err != nil {
		return nil, err
	}
	return &Process{c, answer.ID}, nil
}

// Signal sends sig. SIGKILL reaches also what the process has started. A
// process that has ended already is no error.
func (p *Process) Signal(ctx context.Context, sig syscall.Signal) error {
	_, err := p.client.call(ctx, &request{Op: "signal", ID: p.id, Signal: sig})
	return err
}

// Wait returns how the process ended, once it has.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	answer, err := p.client.call(ctx, &request{Op: "wait", ID: p.id})
	return answer.Exit, err
}

// ReadFile returns a whole file, at most [MaxMessage]·3/4 bytes.
func (c *Client) ReadFile(ctx context.Context, path string) ([]byte, error) {
	answer, err := c.call(ctx, &request{Op: "read", Path: path})
	return answer.Data, err
}

// WriteFile writes a whole file, making its directory; mode 0 is 0644.
func (c *Client) WriteFile(ctx context.Context, path string, data []byte, mode fs.FileMode) error {
	_, err := c.call(ctx, &request{Op: "write", Path: path, Data: data, Mode: mode})
	return err
}

// MkdirAll makes a directory and what leads there.
func (c *Client) MkdirAll(ctx context.Context, path string, mode fs.FileMode) error {
	_, err := c.call(ctx, &request{Op: "mkdir", Path: path, Mode: mode})
	return err
}

// Remove removes a file or an empty directory; errors.Is(err, fs.ErrNotExist)
// tells when there was none.
func (c *Client) Remove(ctx context.Context, path string) error {
	_, err := c.call(ctx, &request{Op: "remove", Path: path})
	return err
}

// Dial opens a stream to an address as seen from the agent's machine: a unix
// socket there, for one.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, _, end, err := c.begin(ctx, &request{Op: "dial", Network: network, Address: address})
	if err != nil {
		return nil, err
	}
	if !end() { // ctx ended in between and has closed the connection
		return nil, errors.Join(context.Cause(ctx), conn.Close())
	}
	return conn, nil
}

// Forward makes a unix socket at path on the agent's machine; what connects
// to it is relayed to address, which that machine must be able to reach. The
// socket lives until the returned Closer is closed.
func (c *Client) Forward(ctx context.Context, path, network, address string) (io.Closer, error) {
	conn, _, end, err := c.begin(ctx, &request{Op: "forward", Listen: path, Network: network, Address: address})
	if err != nil {
		return nil, err
	}
	end()
	return conn, nil
}
