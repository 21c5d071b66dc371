package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/durable"
	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// stage is what a node remembers of one staged volume, across restarts of the
// plugin. It is on stable storage before the first step that it describes, and
// is removed after the last one is undone. It holds no secret.
type stage struct {
	VolumeID    string            `json:"volumeID"`
	StagingPath string            `json:"stagingPath"`
	Capability  volume.Capability `json:"capability"`
	MountFlags  []string          `json:"mountFlags,omitempty"`
	// ReadOnly: the node may not write, and mounts accordingly.
	ReadOnly   bool   `json:"readOnly,omitempty"`
	Generation uint64 `json:"generation"`
	// User and Nonce make the CHAP name; the nonce is new with every
	// staging, which is how the target tells a staging from a reconnect.
	User  string `json:"user"`
	Nonce string `json:"nonce"`

	TargetName string `json:"targetName"`
	LUN        uint16 `json:"lun"`
	NAA        string `json:"naa"`
	SizeBytes  int64  `json:"sizeBytes"`
	// Formatting: mkfs was begun and not seen to end. What lies on the
	// device is then ours to overwrite, nothing was ever mounted.
	Formatting bool `json:"formatting,omitempty"`
	// Staged: every step of Stage was done.
	Staged bool `json:"staged,omitempty"`
	// Targets are the published paths, written before each is mounted.
	Targets []publishedTarget `json:"targets,omitempty"`

	// mkfsOptions come with every Stage and are kept nowhere.
	mkfsOptions []string
}

type publishedTarget struct {
	Path     string            `json:"path"`
	ReadOnly bool              `json:"readOnly,omitempty"`
	Mode     volume.AccessMode `json:"mode"`
}

func (s *stage) volume() initiator.Volume {
	return initiator.Volume{
		TargetName: s.TargetName, LUN: s.LUN, NAA: s.NAA,
		Username: s.User + "+" + s.Nonce, SizeBytes: s.SizeBytes,
	}
}

func (s *stage) target(path string) *publishedTarget {
	for i := range s.Targets {
		if s.Targets[i].Path == path {
			return &s.Targets[i]
		}
	}
	return nil
}

// paths are where the stage may be mounted.
func (s *stage) paths() []string {
	paths := []string{s.StagingPath}
	for _, t := range s.Targets {
		paths = append(paths, t.Path)
	}
	return paths
}

func (s *stage) dropTarget(path string) {
	s.Targets = slices.DeleteFunc(s.Targets, func(t publishedTarget) bool { return t.Path == path })
}

// stages keeps the stage files: one a volume, mode 0600, replaced as a whole.
type stages struct{ dir string }

func openStages(pluginDir string) (stages, error) {
	dir := filepath.Join(pluginDir, "volumes")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return stages{}, err
	}
	if err := durable.Sweep(dir); err != nil {
		return stages{}, err
	}
	return stages{dir: dir}, durable.SyncDir(pluginDir)
}

func (s stages) path(uuid string) string { return filepath.Join(s.dir, uuid+".json") }

// list returns the UUIDs of the volumes that have a stage file.
func (s stages) list() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	var uuids []string
	for _, e := range entries {
		if uuid, ok := strings.CutSuffix(e.Name(), ".json"); ok && isCanonicalUUID(uuid) {
			uuids = append(uuids, uuid)
		}
	}
	return uuids, err
}

// load returns a volume's stage, or nil where there is none. A file that does
// not parse, or is another volume's, is told as such by errBadStage: what it
// described is found by the target's name.
func (s stages) load(uuid string) (*stage, error) {
	data, err := os.ReadFile(s.path(uuid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var st stage
	if err := json.Unmarshal(data, &st); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errBadStage, s.path(uuid), err)
	}
	if id, _ := volumeUUID(st.VolumeID); id != uuid || st.TargetName != volume.TargetName(uuid) || !filepath.IsAbs(st.StagingPath) {
		return nil, fmt.Errorf("%w: %s: it describes another volume", errBadStage, s.path(uuid))
	}
	return &st, nil
}

var errBadStage = errors.New("the stage file does not parse")

func (s stages) save(uuid string, st *stage) error {
	data, err := json.MarshalIndent(st, "", "\t")
	if err != nil {
		return err
	}
	return durable.WriteFile(s.path(uuid), append(data, '\n'))
}

func (s stages) remove(uuid string) error { return durable.Remove(s.path(uuid)) }
