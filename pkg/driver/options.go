package driver

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/spf13/pflag"
)

// maxOverProvisioning is a ratio that only a slip of the pen exceeds.
const maxOverProvisioning = 1000

// ControllerOptions are the settings of the storage node.
type ControllerOptions struct {
	// Endpoint is the unix socket that CSI is served on.
	Endpoint string
	// PoolDir is the directory of the pool.
	PoolDir string
	// ListenAddress is the "host:port" that the target listens on; an empty
	// host is every address of this machine.
	ListenAddress string
	// Portals are the "ip:port" or "ip" that nodes are told to log in on.
	// Empty: the ListenAddress, or this machine's first address.
	Portals []string
	// OverProvisioningRatio is how many times its size the pool may
	// promise.
	OverProvisioningRatio float64
	// MaxVolumesPerNode is how many volumes a node may have attached; 0 is
	// no limit. The scheduler goes by what the nodes say themselves.
	MaxVolumesPerNode int
	// HTTPAddress is the "host:port" of metrics and probes; empty serves
	// none.
	HTTPAddress string
	// AllowFrom are the addresses, as prefixes or single ones, that the
	// portal takes connections from; empty is everybody.
	AllowFrom []string
	// AdminSocket is the path of the socket on which ietadm is answered; empty
	// is none.
	AdminSocket string
}

// DefaultControllerOptions are the options of a controller without flags.
func DefaultControllerOptions() ControllerOptions {
	return ControllerOptions{
		Endpoint:              "unix:///run/csi-ietd/controller.sock",
		PoolDir:               "/var/lib/csi-ietd/pool",
		ListenAddress:         ":3260",
		OverProvisioningRatio: 1,
	}
}

// AddFlags adds a flag for each option; the options' present values are the
// defaults.
func (o *ControllerOptions) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.Endpoint, "endpoint", o.Endpoint,
		"unix socket to serve CSI on")
	flags.StringVar(&o.PoolDir, "pool-dir", o.PoolDir,
		"directory that holds the volumes; made if absent")
	flags.StringVar(&o.ListenAddress, "listen-address", o.ListenAddress,
		"address and port that the iSCSI target listens on")
	flags.StringSliceVar(&o.Portals, "portal", o.Portals,
		"ip[:port] that nodes log in on; repeat for several paths (default: the listen address, or this machine's first address)")
	flags.Float64Var(&o.OverProvisioningRatio, "over-provisioning-ratio", o.OverProvisioningRatio,
		"how many times its size the pool may promise to volumes; above 1 volumes can meet a full disk")
	flags.IntVar(&o.MaxVolumesPerNode, "max-volumes-per-node", o.MaxVolumesPerNode,
		"volumes that one node may have attached, no less than the nodes' own --max-volumes (0: no limit)")
	addHTTPFlag(flags, &o.HTTPAddress)
	flags.StringSliceVar(&o.AllowFrom, "allow-from", o.AllowFrom,
		"address or CIDR that may connect to the iSCSI target; repeat for several (default: everybody)")
	flags.StringVar(&o.AdminSocket, "ietadm-socket", o.AdminSocket,
		"path of a socket on which ietadm --op show is answered, for root alone (default: none)")
}

func addHTTPFlag(flags *pflag.FlagSet, address *string) {
	flags.StringVar(address, "http-address", *address,
		"host:port to serve /metrics, /healthz and /readyz on (default: none)")
}

// Validate says what is wrong with the options, and by which flag to mend it.
func (o *ControllerOptions) Validate() error {
	if _, err := endpointPath(o.Endpoint); err != nil {
		return fmt.Errorf("--endpoint: %w", err)
	}
	if !filepath.IsAbs(o.PoolDir) {
		return fmt.Errorf("--pool-dir %q is not an absolute path", o.PoolDir)
	}
	if _, _, err := net.SplitHostPort(o.ListenAddress); err != nil {
		return fmt.Errorf("--listen-address: %w; give host:port or :port", err)
	}
	if len(o.Portals) > maxPortals {
		return fmt.Errorf("--portal: %d portals, at most %d are allowed", len(o.Portals), maxPortals)
	}
	for _, p := range o.Portals {
		if _, err := parsePortal(p, defaultPort); err != nil {
			return fmt.Errorf("--portal: %w", err)
		}
	}
	if _, err := ParsePrefixes(o.AllowFrom); err != nil {
		return fmt.Errorf("--allow-from: %w", err)
	}
	if err := checkHTTPAddress(o.HTTPAddress); err != nil {
		return err
	}
	if o.AdminSocket != "" && !filepath.IsAbs(o.AdminSocket) {
		return fmt.Errorf("--ietadm-socket %q is not an absolute path", o.AdminSocket)
	}
	if o.MaxVolumesPerNode < 0 {
		return fmt.Errorf("--max-volumes-per-node %d is negative", o.MaxVolumesPerNode)
	}
	if r := o.OverProvisioningRatio; math.IsNaN(r) || r <= 0 || r > maxOverProvisioning {
		return fmt.Errorf("--over-provisioning-ratio %v is not above 0 and at most %d", r, maxOverProvisioning)
	}
	return nil
}

// ParsePrefixes reads prefixes such as 192.0.2.0/24, or single addresses.
func ParsePrefixes(texts []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is no address and no prefix such as 192.0.2.0/24 or 2001:db8::/32", text)
		}
		if prefix != prefix.Masked() {
			return nil, fmt.Errorf("%q has bits beyond its prefix: give %s, or the address alone", text, prefix.Masked())
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}
