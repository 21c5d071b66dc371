// Command csi-ietd is a CSI driver with an iSCSI target in its own process.
package main

import (
	"context"
	"os"

	"github.com/csi-ietd/csi-ietd/cmd/csi-ietd/command"
)

func main() {
	os.Exit(command.Run(context.Background(), os.Args, os.Stderr))
}
