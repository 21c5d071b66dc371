package ietadm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Do asks the target that listens on a socket. The error is that nobody could be asked;
// what the target could not do is in the answer.
func Do(ctx context.Context, socket string, req Request) (Answer, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, unix.EACCES):
		return Answer{}, fmt.Errorf("%w: only root and the group of ietd's -g may ask", err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return Answer{}, fmt.Errorf("%w: is ietd running, with this --socket?", err)
	case err != nil:
		return Answer{}, err
	}
	defer c.Close() // nothing is lost to it
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	line, err := json.Marshal(req)
	if err != nil {
		return Answer{}, err
	}
	if len(line) > maxRequest {
		return Answer{}, Errorf(unix.E2BIG, "a request of %d bytes, at most %d are taken", len(line), maxRequest)
	}
	// One who is refused may hear so before the request is out.
	if _, err := c.Write(append(line, '\n')); err != nil && !errors.Is(err, unix.EPIPE) {
		return Answer{}, fmt.Errorf("%s: %w", socket, err)
	}
	var a Answer
	if err := json.NewDecoder(io.LimitReader(c, maxAnswer)).Decode(&a); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return Answer{}, fmt.Errorf("%s: no answer: %w", socket, err)
	}
	return a, nil
}
