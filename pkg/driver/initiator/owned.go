package initiator

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Attached tells whether there is a session to a target, whoever made it and
// whatever its state.
func (i *Initiator) Attached(target string) (bool, error) {
	sessions, err := i.sysfs.sessions(target)
	return len(sessions) > 0, err
}

// Targets returns the names, beginning with prefix, of the targets that this
// node has sessions to or records of, sorted. A target to which somebody else
// on this machine has a session, or only others' records, is not among them.
// With an error the records were not looked at.
func (i *Initiator) Targets(ctx context.Context, prefix string) ([]string, error) {
	sessions, err := i.sysfs.allSessions()
	if err != nil {
		return nil, err
	}
	found, foreign := map[string]bool{}, map[string]bool{}
	for _, s := range sessions {
		found[s.target] = true
		foreign[s.target] = foreign[s.target] || s.initiator != i.cfg.InitiatorName
	}
	h, hostErr := i.host(ctx)
	if hostErr == nil {
		for _, target := range recordedTargets(h) {
			found[target] = true
		}
	}
	var names []string
	for target := range found {
		if strings.HasPrefix(target, prefix) && !foreign[target] {
			names = append(names, target)
		}
	}
	slices.Sort(names)
	return names, hostErr
}

// recordedTargets are the targets that our iface has records of.
func recordedTargets(h host) []string {
	var targets []string
	for _, dir := range recordDirs(h, "") {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && hasOwnRecord(filepath.Join(dir, e.Name())) {
				targets = append(targets, e.Name())
			}
		}
	}
	return targets
}

// hasOwnRecord tells whether a target's directory holds a record of our iface,
// or none at all, or one that is cut short and so nobody's.
func hasOwnRecord(dir string) bool {
	own, empty := false, true
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		empty = false
		record, err := readRecord(path)
		if err != nil {
			return err
		}
		own = own || isOwnRecord(record)
		return nil
	})
	return err == nil && (own || empty)
}

func isOwnRecord(record string) bool {
	return !strings.Contains(record, "\n"+recordEnd) ||
		strings.Contains(record, "\niface.iscsi_ifacename = "+ifaceName+"\n")
}

func readRecord(path string) (string, error) {
	b, err := rawAttribute(filepath.Dir(path), filepath.Base(path))
	return string(b), err
}
