package driver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// asked is the status and the text of an answer.
func asked(t *testing.T, h http.Handler, path string) (code int, text string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHealth(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "csi.sock")
	var ready atomic.Pointer[func() (bool, error)]
	set := func(ok bool, err error) {
		f := func() (bool, error) { return ok, err }
		ready.Store(&f)
	}
	h, err := NewHealth("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	handler := h.Handler(map[string]http.Handler{"/metrics": http.NotFoundHandler()})
	check := func(when string, live, readyCode int, words string) {
		t.Helper()
		if code, text := asked(t, handler, "/healthz"); code != live {
			t.Errorf("%s: /healthz = %d %s, want %d", when, code, text, live)
		}
		code, text := asked(t, handler, "/readyz")
		if code != readyCode || !strings.Contains(text, words) {
			t.Errorf("%s: /readyz = %d %s, want %d with %q", when, code, text, readyCode, words)
		}
	}
	check("starting", 200, 503, "still starting")
	h.Serving()
	check("nobody on the socket", 503, 503, "csi.sock")

	set(true, nil)
	conn := serving(t, socket, func(s *grpc.Server) {
		csi.RegisterIdentityServer(s, NewIdentity("test", func(context.Context) (bool, error) { return (*ready.Load())() }))
	})
	if _, err := csi.NewIdentityClient(conn).Probe(soon(t), &csi.ProbeRequest{}); err != nil {
		t.Fatal(err)
	}
	check("ready", 200, 200, "ok")
	set(false, nil)
	check("not ready", 200, 503, "not ready")
	set(false, errors.New("iscsid is not running"))
	check("something is missing", 200, 503, "iscsid is not running")
	if code, _ := asked(t, handler, "/other"); code != http.StatusNotFound {
		t.Errorf("/other = %d", code)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/healthz", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /healthz = %d", w.Code)
	}
}

func TestHealthRefusesTCP(t *testing.T) {
	if _, err := NewHealth("tcp://127.0.0.1:1"); err == nil {
		t.Error("a TCP endpoint was taken")
	}
}

func TestServeHTTP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- ServeHTTP(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	}()
	url := "http://" + listener.Addr().String()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(text) != "hello" {
		t.Errorf("got %q", text)
	}
	large, _ := http.NewRequest(http.MethodGet, url, nil)
	large.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	resp, err = http.DefaultClient.Do(large)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("64 KiB of header: status %d", resp.StatusCode)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("at its end: %v", err)
	}
	if _, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
}

func TestServeHTTPFails(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := ServeHTTP(t.Context(), listener, http.NotFoundHandler()); err == nil {
		t.Error("a closed listener was served")
	}
}
