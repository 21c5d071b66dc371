package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

// Config of a lab.
type Config struct {
	Name string // names its directory of logs

	// Unwatched is a lab without [Lab.Secrets]' watchers, which cost much of a
	// guest's processor.
	Unwatched bool
}

// Lab is one pair of networks with the machines on them. A program has one at
// a time.
type Lab struct {
	// Outside is the lab's own namespace: the machine that is not a guest.
	Outside *Machine
	// Secrets watches every machine while it runs; see [Lab.CheckSecrets]. It
	// is nil in an unwatched lab.
	Secrets *Secrets

	root, dir string
	clock     clock
	server    *agent.Server
	bell      *doorbell
	cancel    context.CancelFunc
	tasks     sync.WaitGroup

	mu      sync.Mutex
	guests  []*Guest
	waiting map[string]chan struct{} // control address → announced
}

// New makes the networks. The program must have been started through [Main].
func New(ctx context.Context, cfg Config) (*Lab, error) {
	root := os.Getenv(rootEnv)
	if root == "" {
		return nil, errors.New("lab.New outside lab.Main")
	}
	l := &Lab{root: root, dir: filepath.Join(root, cfg.Name), clock: readClock(), server: &agent.Server{},
		waiting: map[string]chan struct{}{}}
	if err := os.MkdirAll(filepath.Join(l.dir, "outside"), 0o755); err != nil {
		return nil, err
	}
	if err := makeBridges(); err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	err := l.serve(life)
	if err == nil && !cfg.Unwatched {
		l.Secrets = newSecrets()
		files := append(slices.Clone(watched), filepath.Join(l.dir, "pool/*.json"), filepath.Join(l.dir, "pool/*/*/*.json*"))
		err = l.Secrets.watch(ctx, life, l.Outside, agent.Watch{
			Files: files, FileInterval: 50 * time.Millisecond, ProcessInterval: 5 * time.Millisecond,
		})
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Dir is the lab's directory on the machine, one subdirectory per guest with
// its console and logs, and "outside".
func (l *Lab) Dir() string { return l.dir }

// serve starts the lab's own agent and the doorbell.
func (l *Lab) serve(life context.Context) error {
	listener, err := net.Listen("tcp", controlAddress+":7000")
	if err != nil {
		return err
	}
	l.tasks.Go(func() { _ = l.server.Serve(life, listener) })
	l.Outside = &Machine{
		Client:  &agent.Client{Connect: connectTo(life, controlAddress+":7000")},
		Name:    "outside",
		Storage: storageAddress,
		bin:     filepath.Join(l.root, "bin"),
		logs:    filepath.Join(l.dir, "outside"),
	}
	if l.bell, err = listenForGuests(life); err != nil {
		return err
	}
	l.tasks.Go(func() { l.answerDoor(life) })
	return nil
}

// connectTo dials an agent; its connections break when life ends, since a
// machine without power sends no reset.
func connectTo(life context.Context, address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		stop := context.AfterFunc(life, func() { cancel(context.Cause(life)) })
		defer stop()
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, err
		}
		context.AfterFunc(life, func() { conn.Close() })
		return conn, nil
	}
}

func (l *Lab) answerDoor(life context.Context) {
	for {
		select {
		case address := <-l.bell.rings:
			l.mu.Lock()
			if up := l.waiting[address]; up != nil {
				close(up)
				delete(l.waiting, address)
			}
			l.mu.Unlock()
		case <-life.Done():
			return
		}
	}
}

// Close cuts every guest's power, ends what runs outside and takes the
// networks down. The logs stay until the program ends.
func (l *Lab) Close() error {
	l.mu.Lock()
	guests := l.guests
	l.mu.Unlock()
	var errs []error
	for _, g := range guests {
		g.Kill()
		errs = append(errs, removeTaps(g.index))
	}
	l.server.KillStarted()
	l.cancel()
	if l.bell != nil {
		errs = append(errs, l.bell.Close())
	}
	l.tasks.Wait()
	if l.Secrets != nil {
		l.Secrets.tasks.Wait()
	}
	if err := errors.Join(append(errs, removeBridges())...); err != nil {
		return fmt.Errorf("closing the lab: %w", err)
	}
	return nil
}

// CarryIn makes a unix socket at inside on the guest that leads to the unix
// socket at outside, which may appear later. Closing ends it.
func (l *Lab) CarryIn(ctx context.Context, g *Guest, inside, outside string) (io.Closer, error) {
	listener, err := net.Listen("tcp", controlAddress+":0")
	if err != nil {
		return nil, err
	}
	far, err := g.Forward(ctx, inside, "tcp", listener.Addr().String())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &carrier{far: far, cancel: cancel}
	c.relay.Go(func() {
		_ = agent.Forward(life, listener, func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", outside)
		})
	})
	return c, nil
}

// carrier is a socket carried into a guest.
type carrier struct {
	far    io.Closer
	cancel context.CancelFunc
	relay  sync.WaitGroup
}

func (c *carrier) Close() error {
	err := c.far.Close()
	c.cancel()
	c.relay.Wait()
	return err
}
