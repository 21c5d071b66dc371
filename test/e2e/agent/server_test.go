package agent

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnknownOperation(t *testing.T) {
	c, _ := serve(t)
	if _, err := c.call(t.Context(), &request{Op: "fly"}); err == nil || !strings.Contains(err.Error(), `"fly"`) {
		t.Errorf("got %v", err)
	}
}

// TestGarbage costs its own connection alone.
func TestGarbage(t *testing.T) {
	c, _ := serve(t)
	for name, garbage := range map[string][]byte{
		"no JSON":    append(binary.BigEndian.AppendUint32(nil, 4), "junk"...),
		"too long":   binary.BigEndian.AppendUint32(nil, 1<<31),
		"breaks off": {0, 0},
	} {
		conn, err := c.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(garbage); err != nil {
			t.Error(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
			t.Errorf("%s: answered with %q, %v", name, got, err)
		}
		conn.Close()
	}
	if _, err := c.ReadFile(t.Context(), "/proc/self/comm"); err != nil {
		t.Errorf("the agent does not serve any more: %v", err)
	}
}

func TestServeEnds(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- new(Server).Serve(ctx, l) }()
	c := &Client{Connect: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}}
	ran := make(chan error, 1)
	started, output := io.Pipe()
	go func() {
		_, err := c.Run(context.WithoutCancel(ctx), sh("echo; exec sleep 1000"), Streams{Stdout: output})
		ran <- err
	}()
	if _, err := io.ReadFull(started, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := <-ran; err == nil {
		t.Error("the command in progress ended well")
	}
}

func TestDialFails(t *testing.T) {
	c, _ := serve(t)
	if conn, err := c.Dial(t.Context(), "unix", "/no/such/socket"); err == nil {
		conn.Close()
		t.Error("dialled a socket that is not there")
	}
}
