package driver

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2/ktesting"

	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// chained runs a request through all interceptors and returns what was logged.
func chained(t *testing.T, req any, handler grpc.UnaryHandler) (resp any, log string, err error) {
	t.Helper()
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(10)))
	info := &grpc.UnaryServerInfo{FullMethod: "/csi.v1.Test/Call"}
	for _, i := range reversed(interceptors(logger)) {
		next := handler
		handler = func(ctx context.Context, req any) (any, error) { return i(ctx, req, info, next) }
	}
	resp, err = handler(t.Context(), req)
	log = logger.GetSink().(ktesting.Underlier).GetBuffer().String()
	return resp, log, err
}

func reversed(in []grpc.UnaryServerInterceptor) []grpc.UnaryServerInterceptor {
	out := make([]grpc.UnaryServerInterceptor, 0, len(in))
	for i := len(in) - 1; i >= 0; i-- {
		out = append(out, in[i])
	}
	return out
}

func TestCallLog(t *testing.T) {
	req := &csi.ControllerUnpublishVolumeRequest{VolumeId: "pool.volume", NodeId: "node",
		Secrets: map[string]string{"password": "PLANTED-SECRET"}}
	_, log, err := chained(t, req, func(context.Context, any) (any, error) { return nil, volume.ErrPending })
	if status.Code(err) != codes.Aborted {
		t.Errorf("err = %v", err)
	}
	for _, want := range []string{"/csi.v1.Test/Call", "pool.volume", `node="node"`, "Aborted", "duration="} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, "PLANTED-SECRET") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
}

func TestLogHidesPrivateFields(t *testing.T) {
	req := &csi.NodeStageVolumeRequest{
		VolumeId: "v", StagingTargetPath: "/stage",
		PublishContext:   map[string]string{"sealed": "PLANTED-CONTEXT"},
		VolumeCapability: mountCapability("ext4", "password=PLANTED-FLAG"),
		Secrets:          map[string]string{"k": "PLANTED-SECRET"},
	}
	_, log, err := chained(t, req, func(context.Context, any) (any, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log, "PLANTED") {
		t.Errorf("a private value is in the log:\n%s", log)
	}
	if !strings.Contains(log, "/stage") {
		t.Errorf("the request itself is not in the log at this verbosity:\n%s", log)
	}
	if req.GetPublishContext()["sealed"] != "PLANTED-CONTEXT" {
		t.Error("the log changed the request")
	}
}

func TestPanicIsInternal(t *testing.T) {
	_, log, err := chained(t, &csi.ProbeRequest{}, func(context.Context, any) (any, error) { panic("boom") })
	if status.Code(err) != codes.Internal {
		t.Errorf("err = %v", err)
	}
	if !strings.Contains(log, "boom") || !strings.Contains(log, "interceptors_test.go") {
		t.Errorf("the log has no stack:\n%s", log)
	}
	if strings.Contains(status.Convert(err).Message(), "boom") {
		t.Errorf("the panic went to the caller: %v", err)
	}
}

func TestBadFieldNeverReachesHandler(t *testing.T) {
	_, log, err := chained(t, &csi.DeleteVolumeRequest{VolumeId: sized(1 << 19)}, func(context.Context, any) (any, error) {
		t.Error("the handler was called")
		return nil, nil
	})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "volume_id") {
		t.Errorf("err = %v", err)
	}
	line, _, _ := strings.Cut(log[strings.Index(log, "CSI call refused"):], "\n")
	if len(line) > 2000 {
		t.Errorf("a line of %d bytes was logged", len(line))
	}
}

// TestServeMapsErrors: what Serve serves has passed the interceptors.
func TestServeMapsErrors(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "csi.sock")
	conn := serving(t, socket, func(s *grpc.Server) {
		csi.RegisterIdentityServer(s, NewIdentity("v", func(context.Context) (bool, error) { return false, volume.ErrClosed }))
	})
	_, err := csi.NewIdentityClient(conn).Probe(t.Context(), &csi.ProbeRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("err = %v", err)
	}
}
