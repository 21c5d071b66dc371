package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// Limits of the HTTP server: it is asked small questions by machines, and may
// not become a way to hold up the process that serves disks.
const (
	httpHeaderTimeout = 5 * time.Second
	httpReadTimeout   = 10 * time.Second
	httpWriteTimeout  = 30 * time.Second
	httpIdleTimeout   = time.Minute
	httpMaxHeader     = 8 << 10
	httpStopTimeout   = 2 * time.Second
)

// Handler serves /healthz and /readyz, and the handlers given by their paths.
func (h *Health) Handler(others map[string]http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", answer(h.Live))
	mux.Handle("GET /readyz", answer(h.Ready))
	for path, handler := range others {
		mux.Handle("GET "+path, handler)
	}
	return mux
}

// ServeHTTP serves HTTP on a listener until ctx ends, and closes the listener.
func ServeHTTP(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: httpHeaderTimeout, ReadTimeout: httpReadTimeout,
		WriteTimeout: httpWriteTimeout, IdleTimeout: httpIdleTimeout, MaxHeaderBytes: httpMaxHeader,
		ErrorLog: slog.NewLogLogger(logr.ToSlogHandler(klog.FromContext(ctx)), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpStopTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		_ = server.Close() // what does not end by itself is cut off
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
	}
	return nil
}

// checkHTTPAddress takes host:port, or nothing.
func checkHTTPAddress(address string) error {
	if address == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("--http-address: %w; give host:port or :port", err)
	}
	return nil
}
