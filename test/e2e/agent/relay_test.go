package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// socketPair is two ends of a unix stream connection, which can end one
// direction.
func socketPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// TestRelayPassesEnds: each direction ends by itself.
func TestRelayPassesEnds(t *testing.T) {
	client, a := socketPair(t)
	b, service := socketPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		Relay(t.Context(), a, b)
	}()
	if _, err := io.WriteString(client, "question"); err != nil {
		t.Fatal(err)
	}
	if err := client.(closeWriter).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(service); err != nil || string(got) != "question" {
		t.Errorf("the service got %q, %v", got, err)
	}
	if _, err := io.WriteString(service, "answer"); err != nil {
		t.Fatal(err)
	}
	service.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
		t.Errorf("the client got %q, %v", got, err)
	}
	<-done
}

func TestRelayIsCancelled(t *testing.T) {
	client, a := socketPair(t)
	b, service := socketPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Relay(ctx, a, b)
	}()
	cancel()
	<-done
	for _, conn := range []net.Conn{client, service} {
		if got, err := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("read %q, %v", got, err)
		}
	}
}

func TestForward(t *testing.T) {
	c, _ := serve(t)
	dir := t.TempDir()
	service, err := net.Listen("unix", filepath.Join(dir, "service"))
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	go func() { // ends with the listener
		for {
			conn, err := service.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	}()
	path := filepath.Join(dir, "new/forwarded")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil { // stale
		t.Fatal(err)
	}
	forward, err := c.Forward(t.Context(), path, "unix", service.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		conn, err := c.Dial(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "echo"); err != nil {
			t.Error(err)
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "echo" {
			t.Errorf("got %q, %v", got, err)
		}
		conn.Close()
	}
	service.Close()
	down, err := c.Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(down); len(got) != 0 { // ended or reset
		t.Errorf("read %q from a service that is down", got)
	}
	down.Close()
	if err := forward.Close(); err != nil {
		t.Error(err)
	}
}

func TestForwardEnds(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Forward(ctx, l, nil); err != nil {
		t.Errorf("after its context: %v", err)
	}
	if err := Forward(t.Context(), l, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("on a closed listener: %v", err)
	}
	if _, err := listenUnix(strings.Repeat("x", 200)); err == nil {
		t.Error("listened on a path that is too long")
	}
}
