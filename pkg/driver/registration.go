package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registrationSocket is the name of the socket in kubelet's directory of plugin
// registrations. Every node plugin of that driver name takes this one, so two
// of them meet here.
const registrationSocket = Name + "-reg.sock"

// csiVersion is what kubelet is told that the plugin speaks; kubelet wants a
// version of CSI's first major.
const csiVersion = "1.0.0"

// What registering with kubelet fails with; test with errors.Is.
var (
	// ErrSecondPlugin: another node plugin of this driver runs on this
	// machine.
	ErrSecondPlugin = errors.New("another node plugin serves " + Name + " on this machine")
	// ErrRegistrationRefused: kubelet does not take the plugin; the message
	// has its words.
	ErrRegistrationRefused = errors.New("kubelet refused to register " + Name)
)

// ListenRegistration makes the registration socket in kubelet's directory of
// plugin registrations, <kubelet root>/plugins_registry, in the place of one
// that a dead process left. A living one is ErrSecondPlugin.
func ListenRegistration(ctx context.Context, dir string) (net.Listener, error) {
	path := filepath.Join(dir, registrationSocket)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("--registration-dir %s is not kubelet's directory of plugin registrations: "+
			"give <kubelet root>/plugins_registry, mounted from the host: %w", dir, errors.Join(err, os.ErrInvalid))
	}
	if _, err := endpointPath(path); err != nil {
		return nil, fmt.Errorf("--registration-dir: %w", err)
	}
	listener, err := listenUnix(ctx, path)
	if errors.Is(err, errSocketInUse) {
		return nil, fmt.Errorf("%w (%s at %s): remove the other installation of csi-ietd; a machine has one, in one namespace",
			ErrSecondPlugin, describePlugin(ctx, path), path)
	}
	if err != nil {
		return nil, fmt.Errorf("register with kubelet: %w", err)
	}
	return listener, nil
}

// describePlugin says what the plugin behind a registration socket tells of
// itself.
func describePlugin(ctx context.Context, path string) string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "it does not say what it is"
	}
	defer conn.Close()
	info, err := registerapi.NewRegistrationClient(conn).GetInfo(ctx, &registerapi.InfoRequest{})
	if err != nil {
		return "it does not say what it is"
	}
	return fmt.Sprintf("%s with endpoint %.200q", info.GetName(), info.GetEndpoint())
}

// ServeRegistration answers kubelet on the registration socket until ctx ends
// (k8s.io/kubelet pluginregistration/v1), and then removes the socket, by which
// kubelet knows that the plugin is gone. The CSI endpoint must answer by now:
// kubelet asks it at once. It ends with ErrRegistrationRefused where kubelet
// does not take the plugin: kubelet would not ask again before the socket is
// made anew, and a pod that restarts is seen by its user.
func ServeRegistration(ctx context.Context, listener net.Listener, endpoint string) error {
	path, err := endpointPath(endpoint)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	r := &registration{endpoint: path, log: klog.FromContext(ctx), refused: make(chan error, 1)}
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(catchPanics(r.log)),
		grpc.MaxRecvMsgSize(maxMessageSize),
		grpc.ConnectionTimeout(connectionTimeout),
	)
	registerapi.RegisterRegistrationServer(server, r)
	return serve(ctx, listener, server, r.refused)
}

// connectionTimeout bounds a connection's first words.
const connectionTimeout = 10 * time.Second

// registration answers kubelet.
type registration struct {
	registerapi.UnimplementedRegistrationServer
	endpoint string
	log      klog.Logger
	refused  chan error // holds the first refusal
}

// GetInfo says where the plugin's CSI socket is.
func (r *registration) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type: registerapi.CSIPlugin, Name: Name, Endpoint: r.endpoint, SupportedVersions: []string{csiVersion},
	}, nil
}

// NotifyRegistrationStatus hears what kubelet made of it.
func (r *registration) NotifyRegistrationStatus(_ context.Context, s *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	if s.GetPluginRegistered() {
		r.log.Info("Registered with kubelet", "driver", Name, "endpoint", r.endpoint)
		return &registerapi.RegistrationStatusResponse{}, nil
	}
	select {
	case r.refused <- fmt.Errorf("%w: %.2000s", ErrRegistrationRefused, s.GetError()):
	default: // the first is on its way to end the process
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}
