package metrics

import (
	"context"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// callBuckets reach from a call that only looks something up to one that waits
// for a disk, in seconds.
var callBuckets = []float64{.001, .005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}

// Calls counts and times CSI calls by method and gRPC code.
type Calls struct{ durations *prometheus.HistogramVec }

// NewCalls registers the metric.
func NewCalls(r prometheus.Registerer) *Calls {
	c := &Calls{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "csi_call_duration_seconds",
		Help: "Time that CSI calls took, by method and gRPC code.", Buckets: callBuckets,
	}, []string{"method", "code"})}
	r.MustRegister(c.durations)
	return c
}

// Intercept is a grpc.UnaryServerInterceptor. It belongs outside of those that
// change the error.
func (c *Calls) Intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	resp, err := handler(ctx, req)
	c.durations.WithLabelValues(path.Base(info.FullMethod), status.Code(err).String()).Observe(time.Since(start).Seconds())
	return resp, err
}
