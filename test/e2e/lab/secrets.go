package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

// Secrets watches over every machine of a lab, from its start on, for what
// must be seen nowhere but in the records that need it: the CHAP secrets that
// the controller mints, the nodes' private keys, and what the lab planted.
type Secrets struct {
	// Planted goes with every CSI request as one of its secrets, and must not
	// be found anywhere at all.
	Planted string

	mu       sync.Mutex
	seen     []sighting
	contexts []map[string]string
	broken   []error
	tasks    sync.WaitGroup
}

// sighting is something that was seen on a machine.
type sighting struct {
	machine string
	agent.Observation
}

func (s sighting) String() string {
	if s.Kind == agent.File {
		return fmt.Sprintf("%s: %s (mode %#o)", s.machine, s.Path, s.Mode)
	}
	command, _, _ := bytes.Cut(s.Data, []byte{0})
	return fmt.Sprintf("%s: %s of %.60q", s.machine, s.Path, command)
}

// watched are the files that are read while they are there. Those that hold
// secrets are known by their place: see records.
var watched = []string{
	"/etc/iscsi/*", "/etc/iscsi/.[!.]*", "/etc/iscsi/ifaces/*", "/etc/iscsi/nodes/*/*", "/etc/iscsi/nodes/*/*/*",
	pluginDir + "/*.json", pluginDir + "/volumes/*",
	"/var/lib/csi-ietd/pool/*.json", "/var/lib/csi-ietd/pool/*/*/*.json*",
}

// records are the places of the files that need secrets; each must be its
// owner's alone. A half-made record of open-iscsi lies beside its database.
var records = regexp.MustCompile(`^/etc/iscsi/nodes/|^/etc/iscsi/\.[^/]+$|` +
	`/pool/(volumes|staging|trash)/[^/]+/record\.json(\.tmp)?$|` + regexp.QuoteMeta(pluginDir) + `/identity\.json$`)

func newSecrets() *Secrets { return &Secrets{Planted: "planted-" + rand.Text()} }

// watch begins on a machine, and returns when it has begun. It ends with life.
func (s *Secrets) watch(ctx, life context.Context, m *Machine, what agent.Watch) error {
	begun, failed := make(chan struct{}), make(chan error, 1)
	s.tasks.Go(func() {
		err := m.Watch(life, what, func() { close(begun) }, func(o agent.Observation) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.seen = append(s.seen, sighting{m.Name, o})
		})
		failed <- err
		if err != nil && life.Err() == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.broken = append(s.broken, fmt.Errorf("%s: %w", m.Name, err))
		}
	})
	select {
	case <-begun:
		return nil
	case err := <-failed:
		return fmt.Errorf("watching over secrets on %s: %w", m.Name, err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// saw remembers a publish_context, which Kubernetes keeps in clear.
func (s *Secrets) saw(publishContext map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.contexts = append(s.contexts, maps.Clone(publishContext))
}

// request are the secrets of a CSI request.
func (s *Secrets) request() map[string]string { return map[string]string{"password": s.Planted} }

// Minted returns every secret that was seen in a record.
func (s *Secrets) Minted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]bool{}
	for _, o := range s.seen {
		if o.Kind == agent.File && records.MatchString(o.Path) {
			for _, secret := range secretsIn(o.Data) {
				found[secret] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// password is a line of an open-iscsi record, password_in too.
var password = regexp.MustCompile(`(?m)^\S+\.auth\.password(?:_in)? = (\S+)$`)

// secretsIn finds secrets in a record: open-iscsi's passwords, and in JSON the
// strings under a key that says so.
func secretsIn(data []byte) []string {
	var found []string
	for _, m := range password.FindAllSubmatch(data, -1) {
		found = append(found, string(m[1]))
	}
	var tree any
	if json.Unmarshal(data, &tree) == nil {
		found = append(found, secretsOf("", tree)...)
	}
	// A record that is half written may break off within a secret.
	return slices.DeleteFunc(found, func(s string) bool { return len(s) < 12 })
}

func secretsOf(key string, tree any) []string {
	var found []string
	switch t := tree.(type) {
	case map[string]any:
		for key, value := range t {
			found = append(found, secretsOf(key, value)...)
		}
	case []any:
		for _, value := range t {
			found = append(found, secretsOf(key, value)...)
		}
	case string:
		if key = strings.ToLower(key); strings.Contains(key, "secret") || key == "privatekey" {
			found = append(found, t)
		}
	}
	return found
}

// CheckSecrets returns an error for each place where a secret was seen that
// has none to be there, and one if the watcher cannot have seen.
func (l *Lab) CheckSecrets(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	minted := l.Secrets.Minted()
	errs := append(l.Secrets.leaks(minted), l.leaksInLogs(minted)...)
	for _, g := range l.guests {
		if g.power != nil && g.power.life.Err() == nil {
			errs = append(errs, l.leaksInGuest(ctx, g, minted)...)
		}
	}
	return errors.Join(errs...)
}

// leaks looks through what was seen in the course of the run.
func (s *Secrets) leaks(minted []string) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := slices.Clone(s.broken)
	if len(s.contexts) > 0 && len(minted) == 0 {
		errs = append(errs, errors.New("volumes were published, but no record with a secret was seen"))
	}
	all := newNeedles(append(slices.Clone(minted), s.Planted))
	planted := newNeedles([]string{s.Planted})
	for _, o := range s.seen {
		looked := all
		if o.Kind == agent.File && records.MatchString(o.Path) && o.Mode&0o077 == 0 {
			looked = planted
		}
		if looked.in(o.Data) {
			errs = append(errs, fmt.Errorf("a secret was seen on %v", o))
		}
	}
	for _, c := range s.contexts {
		if text, err := json.Marshal(c); err != nil || all.in(text) {
			errs = append(errs, fmt.Errorf("a publish_context holds a secret in clear: %s", c["targetName"]))
		}
	}
	return errs
}

// needles are secrets as they may appear in a text.
type needles [][]byte

func (n needles) in(text []byte) bool {
	return slices.ContainsFunc(n, func(needle []byte) bool { return bytes.Contains(text, needle) })
}

func newNeedles(secrets []string) needles {
	var n needles
	for _, s := range secrets {
		n = append(n, []byte(s), []byte(base64.RawStdEncoding.EncodeToString([]byte(s))))
	}
	return n
}

// leaksInLogs looks through all that the lab's machines have logged: consoles,
// the product, iscsid.
func (l *Lab) leaksInLogs(minted []string) []error {
	var errs []error
	all := newNeedles(append(slices.Clone(minted), l.Secrets.Planted))
	err := filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == filepath.Join(l.dir, "pool"): // watched
			return filepath.SkipDir
		case !d.Type().IsRegular() || filepath.Ext(path) == ".img":
			return nil
		}
		text, err := os.ReadFile(path)
		if all.in(text) {
			errs = append(errs, fmt.Errorf("a secret was logged: %s", path))
		}
		return err
	})
	return append(errs, err)
}

// leaksInGuest looks through the kernel's log, udev's database and the files
// that the guest has now.
func (l *Lab) leaksInGuest(ctx context.Context, g *Guest, minted []string) []error {
	const list = "/dev/shm/secrets"
	secrets := strings.Join(append(slices.Clone(minted), l.Secrets.Planted), "\n")
	if err := g.WriteFile(ctx, list, []byte(secrets), 0o600); err != nil {
		return []error{err}
	}
	found, err := g.Shell(ctx, `cd /
		if dmesg | grep -qFf `+list+`; then echo "the kernel's log"; fi
		if udevadm info --export-db | grep -qFf `+list+`; then echo "udev's database"; fi
		find run tmp etc/iscsi var/lib/kubelet var/lib/csi-ietd -xdev -type f ! -path '*/volumes/*/data' -size -32M -print0 |
			xargs -0 -r grep -lFf `+list+` || true
		rm `+list)
	errs := []error{err}
	for place := range strings.Lines(found) {
		// Whether a record is its owner's alone was looked at when it was seen.
		if place = strings.TrimSpace(place); !records.MatchString("/" + place) {
			errs = append(errs, fmt.Errorf("a secret is on %s in %s", g.Name, place))
		}
	}
	return errs
}
