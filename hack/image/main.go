// Image writes container images without a Docker daemon, byte for byte the
// same from the same input, and sends them to a registry.
//
//	image archive -ref REF -platform linux/amd64=ROOTDIR -entrypoint /x -o OUT.tar
//	image sbom -archive IN.tar -binary linux/amd64=FILE -lock FILE -created TIME -o OUT.json
//	image push -archive IN.tar [-ref REF]
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// commands are the subcommands by name. Each writes its result to out.
var commands = map[string]func(args []string, out io.Writer) error{
	"archive": archiveCommand,
	"push":    pushCommand,
	"sbom":    sbomCommand,
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "image:", err)
		}
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("no subcommand: use archive, sbom or push")
	}
	command, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("unknown subcommand %q: use archive, sbom or push", args[0])
	}
	return command(args[1:], out)
}
