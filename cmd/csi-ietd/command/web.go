package command

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/csi-ietd/csi-ietd/pkg/driver"
	"github.com/csi-ietd/csi-ietd/pkg/driver/metrics"
)

// web is what a role tells over HTTP: metrics, probes, and the pages that it
// adds itself before it begins.
type web struct {
	address  string
	registry *prometheus.Registry
	health   *driver.Health
	calls    *metrics.Calls
	pages    map[string]http.Handler
}

// newWeb prepares what the role that serves a CSI endpoint tells on an address;
// where that is empty nobody is told.
func newWeb(address, endpoint string) (*web, error) {
	health, err := driver.NewHealth(endpoint)
	if err != nil {
		return nil, err
	}
	registry := metrics.NewRegistry(driver.Version())
	return &web{
		address: address, registry: registry, health: health, calls: metrics.NewCalls(registry),
		pages: map[string]http.Handler{},
	}, nil
}

// counted makes a gRPC server count its calls.
func (w *web) counted() grpc.ServerOption { return grpc.ChainUnaryInterceptor(w.calls.Intercept) }

// during serves HTTP while f runs, from before its start to after its end, so
// that a role that takes long to open or to close is not taken for dead.
func (w *web) during(ctx context.Context, f func(context.Context) error) error {
	if w.address == "" {
		return f(ctx)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", w.address)
	if err != nil {
		return fmt.Errorf("--http-address: %w", err)
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	w.pages["/metrics"] = metrics.Handler(w.registry, slogger(klog.FromContext(ctx)))
	pages := w.health.Handler(w.pages)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return driver.ServeHTTP(serving, listener, pages) })
	g.Go(func() error {
		defer stop()
		return f(ctx)
	})
	return g.Wait()
}
