package driver

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/driver/mount"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// The parameters of a StorageClass. They are in users' clusters, and in the
// volume_context of their PersistentVolumes: names and meanings never change.
const (
	// paramReplacementTimeout is how long I/O of a volume with one path
	// waits for a lost target, a Go duration.
	paramReplacementTimeout = "replacementTimeout"
	// paramMkfsOptions are options for mkfs of the volume's file system,
	// separated by blanks.
	paramMkfsOptions = "mkfsOptions"
)

// knownParameters are those of our own.
var knownParameters = []string{paramMkfsOptions, paramReplacementTimeout}

// minReplacement and maxReplacement bound how long I/O may wait for a target.
const minReplacement, maxReplacement = 5 * time.Second, 24 * time.Hour

// settings are what a StorageClass says of a volume that a node heeds.
type settings struct {
	// replacementTimeout is 0 where the node's own holds.
	replacementTimeout time.Duration
	mkfsOptions        []string
}

// checkParameters refuses a parameter that means nothing to csi-ietd: a typo in
// a StorageClass must not pass for a setting. Those of Kubernetes itself are
// taken; the file system comes with the capability. Errors are
// volume.ErrUnsupported.
func checkParameters(parameters map[string]string, capabilities []volume.Capability) error {
	for _, key := range slices.Sorted(maps.Keys(parameters)) {
		if !slices.Contains(knownParameters, key) && !strings.HasPrefix(key, volume.OrchestratorPrefix) {
			return fmt.Errorf("%w: parameter %q; csi-ietd knows %s", volume.ErrUnsupported, key, strings.Join(knownParameters, ", "))
		}
	}
	for _, c := range capabilities {
		if _, err := readSettings(parameters, c); err != nil {
			return fmt.Errorf("%w: %w", volume.ErrUnsupported, err)
		}
	}
	return nil
}

// readSettings reads the parameters of our own for a volume that is used so. A
// raw block volume has no use for mkfsOptions, and its class may have them for
// its file systems' sake.
func readSettings(parameters map[string]string, c volume.Capability) (settings, error) {
	var s settings
	var err error
	if text, ok := parameters[paramReplacementTimeout]; ok {
		if s.replacementTimeout, err = parseReplacement(text); err != nil {
			return settings{}, err
		}
	}
	if text := parameters[paramMkfsOptions]; text != "" && !c.Block {
		if s.mkfsOptions, err = mount.ParseMkfsOptions(c.FSType, text); err != nil {
			return settings{}, fmt.Errorf("parameter %s: %w", paramMkfsOptions, err)
		}
	}
	return s, nil
}

// parseReplacement takes whole seconds, since that is what open-iscsi counts.
func parseReplacement(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < minReplacement || d > maxReplacement || d%time.Second != 0 {
		return 0, fmt.Errorf("parameter %s %.40q: give whole seconds such as 90s or 10m, from %s to %s",
			paramReplacementTimeout, text, minReplacement, maxReplacement)
	}
	return d, nil
}

// volumeContext is what a node must know of a volume's parameters.
func volumeContext(parameters map[string]string) map[string]string {
	var told map[string]string
	for _, key := range knownParameters {
		if value, ok := parameters[key]; ok {
			if told == nil {
				told = map[string]string{}
			}
			told[key] = value
		}
	}
	return told
}

// nodeSettings reads a volume_context, in which Kubernetes and the makers of
// PersistentVolumes have keys of their own.
func nodeSettings(context map[string]string, c volume.Capability) (settings, error) {
	s, err := readSettings(context, c)
	if err != nil {
		return settings{}, invalidField("volume_context", "%v", err)
	}
	return s, nil
}
