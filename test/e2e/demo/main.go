// Command demo shows csi-ietd at its main job, on two machines with Linux
// kernels of their own: a volume is made, written on the one, moved to the
// other, read, grown and deleted. It ends with a status other than zero if any
// step is not as it should be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

func main() {
	shell := flag.Bool("shell", false, "instead of the demo, open a shell in a guest with a volume attached")
	flag.Parse()
	play := demo
	if *shell {
		play = playground
	}
	os.Exit(lab.Main(func() int {
		if err := play(context.Background()); err != nil {
			fmt.Fprintf(os.Stderr, "\n%v\n", err)
			return 1
		}
		return 0
	}))
}

// stage is where a demo plays: a controller outside, two nodes in guests.
type stage struct {
	lab        *lab.Lab
	controller *lab.Controller
	nodes      []*lab.Node
}

// httpAddress is where the controller tells of itself, in the lab's network.
const httpAddress = "127.0.0.1:9810"

func setUp(ctx context.Context, guests int) (*stage, error) {
	l, err := lab.New(ctx, lab.Config{Name: "demo"})
	if err != nil {
		return nil, err
	}
	s := &stage{lab: l, nodes: make([]*lab.Node, guests)}
	if s.controller, err = l.StartController(ctx, l.Outside, "--http-address", httpAddress); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := s.startNodes(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

func (s *stage) startNodes(ctx context.Context) error {
	var configs []lab.GuestConfig
	for i := range s.nodes {
		configs = append(configs, lab.GuestConfig{Name: fmt.Sprintf("node-%d", i+1)})
	}
	guests, err := s.lab.BootAll(ctx, configs...)
	if err != nil {
		return err
	}
	starts, ctx := errgroup.WithContext(ctx)
	for i, g := range guests {
		starts.Go(func() error {
			var err error
			s.nodes[i], err = s.lab.StartNode(ctx, g)
			return err
		})
	}
	return starts.Wait()
}

// playground is make lab.
func playground(ctx context.Context) (err error) {
	s, err := setUp(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.lab.Close()) }()
	v, err := s.controller.Create(ctx, lab.Claim{Name: "pvc-lab", Size: gibibyte})
	if err != nil {
		return err
	}
	path, err := v.Attach(ctx, s.nodes[0], "pod")
	if err != nil {
		return err
	}
	fmt.Printf(`A shell in node-1; exit ends the lab.
  the volume        %s
  the programs      /run/lab/bin
  the logs          /run/lab/share (node.log, iscsid.log), outside: %s
`, path, s.lab.Dir())
	return s.nodes[0].Guest.Interact(ctx)
}

// narrator prints steps with the time that each took.
type narrator struct {
	step  int
	began time.Time
}

// tell runs one step and prints what came of it.
func (n *narrator) tell(title string, step func() (string, error)) error {
	n.step++
	fmt.Printf("%2d  %-44s ", n.step, title)
	start := time.Now()
	result, err := step()
	fmt.Printf("%6.2f s   ", time.Since(start).Seconds())
	if err != nil {
		fmt.Println("FAILED")
		return fmt.Errorf("step %d, %s: %w", n.step, title, err)
	}
	fmt.Println(result)
	return nil
}
