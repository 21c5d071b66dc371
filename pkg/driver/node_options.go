package driver

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
)

const (
	defaultNodeEndpoint = "unix:///run/csi-ietd/node.sock"
	defaultKubeletRoot  = "/var/lib/kubelet"
	// defaultMaxVolumes is what a node is known to carry well; every volume
	// is a session with threads and memory of its own in the kernel.
	defaultMaxVolumes = 256
)

// NodeOptions configure `csi-ietd node`.
type NodeOptions struct {
	// Endpoint is the CSI socket, unix:///path.
	Endpoint string
	// KubeletRoot is kubelet's --root-dir.
	KubeletRoot string
	// PluginDir keeps the node's identity and what is staged; empty means
	// plugins/csi-ietd.io under KubeletRoot. It must survive a restart of
	// the plugin, and a reboot for the identity's sake.
	PluginDir string
	// HostProc is a /proc in which iscsid is found: another than this process's
	// own where the node is itself a container, as kind's are.
	HostProc string
	// NodeName is the Kubernetes node's name; empty means the host's name.
	NodeName string
	// MaxVolumes is the number of volumes that the scheduler may put here.
	MaxVolumes int64
	// ReplacementTimeout is how long I/O of a volume with one path waits
	// for a lost session before it fails.
	ReplacementTimeout time.Duration
	// DetachGrace is how long Unstage waits for a lost target to come back
	// and take what is not written yet, before it gives that up.
	DetachGrace time.Duration
	// RegistrationDir is where kubelet looks for plugins to register; empty
	// registers with nobody.
	RegistrationDir string
	// HTTPAddress is the "host:port" of metrics and probes; empty serves
	// none.
	HTTPAddress string
	// RemoveStartupTaint takes StartupTaintKey off this node once volumes
	// can be staged here.
	RemoveStartupTaint bool
}

// DefaultNodeOptions are the options of a node that is given no flag.
func DefaultNodeOptions() NodeOptions {
	return NodeOptions{
		Endpoint: defaultNodeEndpoint, KubeletRoot: defaultKubeletRoot, HostProc: "/proc", MaxVolumes: defaultMaxVolumes,
		ReplacementTimeout: 600 * time.Second, DetachGrace: 5 * time.Minute,
	}
}

// AddFlags adds a flag for each option.
func (o *NodeOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Endpoint, "endpoint", o.Endpoint, "CSI socket to serve")
	fs.StringVar(&o.KubeletRoot, "kubelet-root", o.KubeletRoot, "kubelet's root directory")
	fs.StringVar(&o.PluginDir, "plugin-dir", o.PluginDir, "directory of this node's identity and of what is staged (default <kubelet-root>/plugins/"+Name+")")
	fs.StringVar(&o.HostProc, "host-proc", o.HostProc, "the /proc in which iscsid is found, where the node is a container of the machine that runs it")
	fs.StringVar(&o.NodeName, "node-name", o.NodeName, "name of the Kubernetes node (default the host's name)")
	fs.Int64Var(&o.MaxVolumes, "max-volumes", o.MaxVolumes, "volumes that this node takes at one time")
	fs.DurationVar(&o.ReplacementTimeout, "replacement-timeout", o.ReplacementTimeout, "how long I/O waits for a lost target that has one path")
	fs.DurationVar(&o.DetachGrace, "detach-grace", o.DetachGrace, "how long an unmount waits for a lost target to take unwritten data before giving that up")
	fs.StringVar(&o.RegistrationDir, "registration-dir", o.RegistrationDir, "directory in which kubelet looks for plugins, <kubelet-root>/plugins_registry (default: this plugin is not registered)")
	addHTTPFlag(fs, &o.HTTPAddress)
	fs.BoolVar(&o.RemoveStartupTaint, "remove-startup-taint", o.RemoveStartupTaint, "take the taint "+StartupTaintKey+" off this node once volumes can be staged here; runs in a cluster alone")
}

// Validate fills in what depends on the machine and refuses what cannot work;
// the error names the flag.
func (o *NodeOptions) Validate() error {
	if _, err := endpointPath(o.Endpoint); err != nil {
		return fmt.Errorf("--endpoint: %w", err)
	}
	if !filepath.IsAbs(o.KubeletRoot) {
		return fmt.Errorf("--kubelet-root %q: give an absolute path", o.KubeletRoot)
	}
	if o.PluginDir == "" {
		o.PluginDir = filepath.Join(o.KubeletRoot, "plugins", Name)
	}
	if !filepath.IsAbs(o.PluginDir) {
		return fmt.Errorf("--plugin-dir %q: give an absolute path", o.PluginDir)
	}
	if !filepath.IsAbs(o.HostProc) {
		return fmt.Errorf("--host-proc %q: give an absolute path", o.HostProc)
	}
	if o.RegistrationDir != "" && !filepath.IsAbs(o.RegistrationDir) {
		return fmt.Errorf("--registration-dir %q: give an absolute path", o.RegistrationDir)
	}
	if err := checkHTTPAddress(o.HTTPAddress); err != nil {
		return err
	}
	if o.NodeName == "" {
		name, err := os.Hostname()
		if err != nil || name == "" {
			return fmt.Errorf("--node-name: the host has no name; give the flag: %w", err)
		}
		o.NodeName = name
	}
	if o.MaxVolumes < 1 || o.MaxVolumes > 16384 {
		return fmt.Errorf("--max-volumes %d: give 1 to 16384", o.MaxVolumes)
	}
	if o.ReplacementTimeout < 5*time.Second || o.ReplacementTimeout > 24*time.Hour {
		return fmt.Errorf("--replacement-timeout %s: give 5s to 24h", o.ReplacementTimeout)
	}
	if o.DetachGrace < time.Second || o.DetachGrace > time.Hour {
		return fmt.Errorf("--detach-grace %s: give 1s to 1h", o.DetachGrace)
	}
	return nil
}
