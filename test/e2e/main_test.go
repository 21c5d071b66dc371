package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	driverName = "csi-ietd.io"
	release    = "csi-ietd"
	system     = "csi-ietd" // the namespace that it is installed into
	root       = "../.."    // of the repository
)

var keep = flag.Bool("keep", false, "leave csi-ietd installed, and use it if it is there")

// The cluster under test.
var (
	config      *rest.Config
	client      kubernetes.Interface
	nodes       []string // by name
	storageNode string   // the first of them holds the pool
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

// run installs, tests and uninstalls.
func run(m *testing.M) int {
	status := 1
	err := bounded(func(ctx context.Context) error {
		if err := connect(ctx); err != nil {
			return err
		}
		return install(ctx)
	})
	if err == nil {
		status = m.Run()
	}
	if err == nil && !*keep {
		err = bounded(func(ctx context.Context) error {
			return errors.Join(uninstall(ctx, "install.md", "uninstall"), manifests(ctx), onClaim(ctx))
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return status
}

// bounded is for what goes before and after the tests, which have time limits
// of their own.
func bounded(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	return f(ctx)
}

func connect(ctx context.Context) error {
	if os.Getenv("KUBECONFIG") == "" {
		return errors.New("KUBECONFIG names no cluster: `make e2e` makes one and runs the suite there")
	}
	var err error
	if config, err = clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG")); err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100
	if client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	// A node that has just become Ready carries its taint a moment longer.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := poll(ctx, func() error { return findNodes(ctx) }); err != nil {
		return err
	}
	storageNode = nodes[0]
	return nil
}

// findNodes finds the nodes that take pods, which the suite needs two of.
func findNodes(ctx context.Context) error {
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	nodes = nil
	for _, n := range list.Items {
		if !n.Spec.Unschedulable && !hasNoScheduleTaint(n.Spec.Taints) {
			nodes = append(nodes, n.Name)
		}
	}
	if len(nodes) < 2 {
		return fmt.Errorf("the cluster has %d nodes for pods, the suite needs 2", len(nodes))
	}
	slices.Sort(nodes)
	return nil
}

// install installs as docs/install.md says.
func install(ctx context.Context) error {
	if *keep {
		if _, err := helm(ctx, "status", release, "--namespace", system); err == nil {
			return nil
		}
	}
	began := time.Now()
	script, err := labelled("install.md", "install")
	if err != nil {
		return err
	}
	out, err := runDocumented(ctx, script, "NODE="+storageNode)
	if err != nil {
		pods, _ := kubectl(ctx, "", "-n", system, "describe", "pods")
		logs, _ := kubectl(ctx, "", "-n", system, "logs", "--all-containers", "--prefix", "--tail=20", "-l", "app.kubernetes.io/name=csi-ietd")
		return fmt.Errorf("%w\n%s\n%s", err, pods, logs)
	}
	fmt.Printf("%s\ninstalled in %.1f s\n", out, time.Since(began).Seconds())
	return nil
}

// manifests installs again without Helm, makes a first volume, and takes all of
// it away.
func manifests(ctx context.Context) error {
	began := time.Now()
	for _, b := range [][2]string{{"kubernetes.md", "apply"}, {"install.md", "first"}, {"install.md", "first-away"}} {
		if err := documented(ctx, b[0], b[1]); err != nil {
			return err
		}
	}
	fmt.Printf("installed without Helm, and a first volume, in %.1f s\n", time.Since(began).Seconds())
	return uninstall(ctx, "kubernetes.md", "remove")
}

func helm(ctx context.Context, args ...string) (string, error) {
	return output(exec.CommandContext(ctx, filepath.Join(root, "hack/helm"), args...))
}

// kubectl runs kubectl with stdin.
func kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Stdin = strings.NewReader(stdin)
	return output(cmd)
}

// output runs a command and returns what it printed on stdout.
func output(cmd *exec.Cmd) (string, error) {
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s %s", strings.Join(cmd.Args, " "), err, out.String(), errs.String())
	}
	return strings.TrimRight(out.String(), "\n"), err
}
