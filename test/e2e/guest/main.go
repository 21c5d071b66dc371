// Command guest is what the lab runs in a guest: as PID 1 it brings the guest
// up, and then, as a second process, it is the agent that does what the
// harness asks for over the control network.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

func main() {
	if os.Getpid() == 1 {
		initMain()
	}
	listen := flag.String("listen", "", "`address` to serve on (TCP)")
	announce := flag.String("announce", "", "`address` to connect to once serving: tells the harness that this machine is up")
	cgroups := flag.String("cgroups", "", "cgroup v2 `directory` for background processes")
	flag.Parse()
	if err := run(*listen, *announce, *cgroups); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func run(listen, announce, cgroups string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	if announce != "" {
		conn, err := net.Dial("tcp", announce)
		if err != nil {
			return err
		}
		conn.Close()
	}
	return (&agent.Server{CgroupRoot: cgroups}).Serve(context.Background(), l)
}
