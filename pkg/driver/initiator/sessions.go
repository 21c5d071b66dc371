package initiator

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// CountSessions counts the kernel's sessions to targets whose names begin with
// prefix, by state in the kernel's words: LOGGED_IN, FAILED, FREE; "" for one
// that ends just now. sys is where sysfs is mounted.
func CountSessions(sys, prefix string) (map[string]int, error) {
	class := filepath.Join(sys, "class/iscsi_session")
	entries, err := os.ReadDir(class)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]int{}, nil // the module is not loaded
	}
	if err != nil {
		return nil, err
	}
	states := map[string]int{}
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		if name, err := attribute(dir, "targetname"); err == nil && strings.HasPrefix(name, prefix) {
			states[readSession(dir, name).state]++
		}
	}
	return states, nil
}
