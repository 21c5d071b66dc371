package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

// Where the control plane listens, in the lab's own namespace.
const (
	apiServer    = "10.77.0.1:6443"
	apiServerIP  = "10.77.0.1"
	etcdAddress  = "http://127.0.0.1:2379"
	etcdPeer     = "http://127.0.0.1:2380"
	serviceNet   = "10.96.0.0/24"
	apiServiceIP = "10.96.0.1"
)

// certificates makes what every component shows or trusts.
func (c *Cluster) certificates() error {
	var err error
	if c.pki, err = newPKI(filepath.Join(c.lab.Dir(), "pki")); err != nil {
		return err
	}
	return errors.Join(
		c.pki.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"},
			[]string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
			net.ParseIP(apiServerIP), net.ParseIP("127.0.0.1"), net.ParseIP(apiServiceIP)),
		c.pki.issue("kubelet-client", pkix.Name{CommonName: "apiserver-kubelet-client", Organization: []string{"system:masters"}}, nil),
		c.pki.kubeconfig("admin", "admin", "system:masters"),
		c.pki.kubeconfig("controller-manager", "system:kube-controller-manager"),
		c.pki.kubeconfig("scheduler", "system:kube-scheduler"),
		c.pki.kubeconfig("proxy", "system:kube-proxy"),
	)
}

// startControlPlane starts etcd and what talks to it, and returns when all of
// it is ready.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return c.runOutside(ctx, "kube-controller-manager", "https://127.0.0.1:10257/healthz",
			"--kubeconfig", c.pki.path("controller-manager.kubeconfig"), "--bind-address=127.0.0.1", "--leader-elect=false",
			// Tests wait for a lost node to be noticed, by default after 50s to 55s.
			// kubelet reports every second here.
			"--node-monitor-grace-period=10s", "--node-monitor-period=2s",
			"--use-service-account-credentials=true",
			"--service-account-private-key-file", c.pki.path("sa.key"), "--root-ca-file", c.pki.path("ca.crt"))
	})
	g.Go(func() error {
		return c.runOutside(ctx, "kube-scheduler", "https://127.0.0.1:10259/healthz",
			"--kubeconfig", c.pki.path("scheduler.kubeconfig"), "--bind-address=127.0.0.1", "--leader-elect=false")
	})
	return g.Wait()
}

func (c *Cluster) startEtcd(ctx context.Context) error {
	return c.run(ctx, "etcd", etcdAddress+"/health", "etcd",
		"--name=lab", "--data-dir", filepath.Join(c.lab.Dir(), "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", etcdAddress, "--advertise-client-urls", etcdAddress,
		"--listen-peer-urls", etcdPeer, "--initial-advertise-peer-urls", etcdPeer, "--initial-cluster=lab="+etcdPeer)
}

// startAPIServer: the default endpoint reconciler makes the advertised address
// the endpoint of the Service "kubernetes".
func (c *Cluster) startAPIServer(ctx context.Context) error {
	return c.runOutside(ctx, "kube-apiserver", "https://"+apiServer+"/readyz",
		"--etcd-servers="+etcdAddress, "--bind-address=0.0.0.0", "--advertise-address="+apiServerIP, "--secure-port=6443",
		"--tls-cert-file", c.pki.path("apiserver.crt"), "--tls-private-key-file", c.pki.path("apiserver.key"),
		"--client-ca-file", c.pki.path("ca.crt"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--kubelet-client-certificate", c.pki.path("kubelet-client.crt"), "--kubelet-client-key", c.pki.path("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file", c.pki.path("sa.key"), "--service-account-key-file", c.pki.path("sa.pub"),
		"--service-cluster-ip-range="+serviceNet, "--allow-privileged=true")
}

// runOutside runs one of Kubernetes' programs in the lab's own namespace.
func (c *Cluster) runOutside(ctx context.Context, name, health string, flags ...string) error {
	return c.run(ctx, name, health, filepath.Join(c.programs, name), flags...)
}

// run starts a process that lives as long as the lab, and returns when it is
// healthy.
func (c *Cluster) run(ctx context.Context, name, health, program string, flags ...string) error {
	log := filepath.Join(c.lab.Dir(), "outside", name+".log")
	process, err := c.lab.Outside.Start(ctx, agent.Command{Args: append([]string{program}, flags...), Env: lessGarbage, Log: log})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not healthy after %v", startTimeout))
	defer cancel()
	ctx, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	go func() { // ends with ctx, which ends with this function
		if exit, err := process.Wait(ctx); err == nil {
			ended(fmt.Errorf("it ended: %v", exit))
		}
	}()
	if err := poll(ctx, 100*time.Millisecond, func(ctx context.Context) error { return get(ctx, health) }); err != nil {
		return fmt.Errorf("%s: %w (its log is %s)", name, err, log)
	}
	return nil
}

// probe trusts any certificate: that something answers on this address is all
// that is asked.
var probe = &http.Client{
	Timeout:   5 * time.Second,
	Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := probe.Do(req)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, answer.Status)
	}
	return nil
}

// poll tries until there is no error, or returns the last one and why ctx
// ended.
func poll(ctx context.Context, every time.Duration, try func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// KubectlEnv is the environment in which kubectl, in the lab's namespace, is
// the cluster's administrator.
func (c *Cluster) KubectlEnv() []string {
	return []string{"KUBECONFIG=" + c.pki.path("admin.kubeconfig"), "PATH=" + c.programs + ":" + os.Getenv("PATH")}
}
