package child

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// searchPath is where programs are looked for, whatever environment we were
// started in: sbin is missing from many.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Installed tells whether a program is there to run, or ErrNoProgram.
func Installed(name string) error {
	_, err := lookPath(name)
	return err
}

func lookPath(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range strings.Split(searchPath, ":") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: %s is not in %s", ErrNoProgram, name, searchPath)
}
