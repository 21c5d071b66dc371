package driver

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/protosanitizer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/klog/v2"

	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// Log levels above the one line that every call gets.
const (
	levelProbe   = 4 // calls that only ask, and that come all the time
	levelRequest = 5 // the request itself, without secrets
)

// interceptors are what every call passes, the outermost first: the log sees
// the final status, the status sees what the panic handler made, and a request
// reaches its handler only when its fields are sound.
func interceptors(logger klog.Logger) []grpc.UnaryServerInterceptor {
	return []grpc.UnaryServerInterceptor{
		logCalls(logger),
		mapErrors,
		catchPanics(logger),
		checkFields,
	}
}

// logCalls writes one line a call: method, ids, duration, code. The handler's
// context carries a logger with the same method and ids.
func logCalls(logger klog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		start := time.Now()
		logger := logger.WithValues(append([]any{"method", info.FullMethod}, requestIDs(req)...)...)
		if v := logger.V(levelRequest); v.Enabled() {
			v.Info("CSI request", "request", sanitized(req))
		}
		resp, err := handler(klog.NewContext(ctx, logger), req)
		logOutcome(logger, req, err, time.Since(start))
		return resp, err
	}
}

func logOutcome(logger klog.Logger, req any, err error, took time.Duration) {
	code := status.Code(err)
	values := []any{"code", code.String(), "duration", took}
	switch {
	case code == codes.Internal || code == codes.Unknown:
		logger.Error(err, "CSI call failed", values...)
	case err != nil:
		logger.Info("CSI call refused", append(values, "reason", status.Convert(err).Message())...)
	case len(requestIDs(req)) == 0:
		logger.V(levelProbe).Info("CSI call", values...)
	default:
		logger.Info("CSI call", values...)
	}
}

// requestIDs are the log values that say what a request is about. They are
// logged before anything checked them, so they are cut to a bearable length.
func requestIDs(req any) []any {
	var ids []any
	add := func(key, value string) {
		if value != "" {
			ids = append(ids, key, value[:min(len(value), maxNodeID)])
		}
	}
	if r, ok := req.(interface{ GetName() string }); ok {
		add("name", r.GetName())
	}
	if r, ok := req.(interface{ GetParameters() map[string]string }); ok {
		whom := volume.WhomOf(r.GetParameters())
		add("persistentvolume", whom.PersistentVolume)
		add("namespace", whom.Namespace)
		add("persistentvolumeclaim", whom.Claim)
	}
	if r, ok := req.(interface{ GetVolumeId() string }); ok {
		add("volume", r.GetVolumeId())
	}
	if r, ok := req.(interface{ GetNodeId() string }); ok {
		add("node", r.GetNodeId())
	}
	return ids
}

// mapErrors gives every error the code that status.go has for it.
func mapErrors(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, statusError(err)
	}
	return resp, nil
}

// catchPanics turns a panic of a handler into INTERNAL: one broken call must
// not end the sessions of all volumes.
func catchPanics(logger klog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		defer func() {
			if p := recover(); p != nil {
				logger.Error(fmt.Errorf("panic: %v", p), "CSI handler panicked",
					"method", info.FullMethod, "stack", string(debug.Stack()))
				resp, err = nil, status.Error(codes.Internal, "internal error; the log of the driver has the stack")
			}
		}()
		return handler(ctx, req)
	}
}

// checkFields refuses a request with a missing or oversized field.
func checkFields(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if m, ok := req.(proto.Message); ok {
		if err := validateFields(m); err != nil {
			return nil, err
		}
	}
	return handler(ctx, req)
}

// privateFields hold values that the CSI specification does not mark as
// secret and that the log has no business with all the same.
var privateFields = map[protoreflect.Name]bool{
	"publish_context": true,
	"mount_flags":     true,
}

const stripped = "***stripped***"

// sanitized is a request as the log may show it: marked secrets, publish
// contexts and mount flags are replaced.
func sanitized(req any) fmt.Stringer {
	m, ok := req.(proto.Message)
	if !ok {
		return protosanitizer.StripSecrets(req)
	}
	m = proto.Clone(m)
	stripPrivate(m.ProtoReflect())
	return protosanitizer.StripSecrets(m)
}

func stripPrivate(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case privateFields[f.Name()]:
			stripValues(f, v)
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				stripPrivate(v.List().Get(i).Message())
			}
		case !f.IsList() && !f.IsMap() && f.Message() != nil:
			stripPrivate(v.Message())
		}
		return true
	})
}

// stripValues replaces the strings of a map or a list.
func stripValues(f protoreflect.FieldDescriptor, v protoreflect.Value) {
	replacement := protoreflect.ValueOfString(stripped)
	switch {
	case f.IsMap():
		v.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			v.Map().Set(k, replacement)
			return true
		})
	case f.IsList():
		for i := range v.List().Len() {
			v.List().Set(i, replacement)
		}
	}
}
