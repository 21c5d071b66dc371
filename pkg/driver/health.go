package driver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// healthTimeout bounds one look at our own CSI socket; kubelet's probes should
// wait a little longer.
const healthTimeout = 3 * time.Second

var (
	errStarting = errors.New("still starting")
	errNotReady = errors.New("CSI is served but not ready")
)

// Health says whether this process is alive and ready, by asking its own CSI
// socket as kubelet and the sidecars do.
type Health struct {
	path    string
	serving atomic.Bool
	asked   singleflight.Group // a crowd of probes is one look
}

// NewHealth returns the health of the process that serves an endpoint, which is
// starting until Serving is called.
func NewHealth(endpoint string) (*Health, error) {
	path, err := endpointPath(endpoint)
	return &Health{path: path}, err
}

// Serving says that CSI is served from now on.
func (h *Health) Serving() { h.serving.Store(true) }

// Live is nil while the process works, whether or not it lacks something to
// serve volumes with: a restart mends no missing iscsid. One that is starting
// is alive; opening a pool takes as long as it takes.
func (h *Health) Live(ctx context.Context) error {
	if !h.serving.Load() {
		return nil
	}
	return h.ask(ctx, "live", func(ctx context.Context, c csi.IdentityClient) error {
		_, err := c.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
		return err
	})
}

// Ready is nil when volumes can be served; the error says what is missing.
func (h *Health) Ready(ctx context.Context) error {
	if !h.serving.Load() {
		return errStarting
	}
	return h.ask(ctx, "ready", func(ctx context.Context, c csi.IdentityClient) error {
		resp, err := c.Probe(ctx, &csi.ProbeRequest{})
		if err == nil && !resp.GetReady().GetValue() {
			err = errNotReady
		}
		return err
	})
}

// ask connects anew each time: a connection that was made before proves little.
func (h *Health) ask(ctx context.Context, what string, question func(context.Context, csi.IdentityClient) error) error {
	_, err, _ := h.asked.Do(what, func() (any, error) {
		// Whoever asked first may leave while others wait for the answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
		defer cancel()
		conn, err := grpc.NewClient("unix:"+h.path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		return nil, question(ctx, csi.NewIdentityClient(conn))
	})
	return err
}

// answer turns a question into an HTTP handler: 200, or 503 with the reason.
func answer(question func(context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := question(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintln(w, err) // whoever asked may have gone
			return
		}
		_, _ = fmt.Fprintln(w, "ok") // likewise
	})
}
