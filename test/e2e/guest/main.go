// Command guest is the lab's agent: it runs on every machine of the lab and
// does there what the harness asks for over the control network.
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
