// Command bench sets `csi-ietd ietd` beside other targets on this machine: a null target in
// memory and one over a file, which are the limits, and Debian's tgt. Case by case all have
// the same load over loopback, in turn, round after round, so that a drift of the machine
// falls on all alike. It prints medians and what of each is ours; docs/performance.md tells
// how to read that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// options are what the command line says.
type options struct {
	rounds, secs, idle int
	cases, json, dir   string
	ours               string
	noTgt              bool
	peers              peers
}

// peers are other builds of csi-ietd to set beside ours.
type peers []peer

type peer struct{ name, path string }

func (p *peers) String() string { return "" }

// Set reads NAME=PATH.
func (p *peers) Set(s string) error {
	name, path, ok := strings.Cut(s, "=")
	if !ok || name == "" || path == "" {
		return errors.New("want NAME=PATH")
	}
	*p = append(*p, peer{name, path})
	return nil
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "give every case to every target this `often`")
	flag.IntVar(&o.secs, "secs", 3, "`seconds` that a target has a case for")
	flag.StringVar(&o.cases, "cases", "", "only the cases that have one of these `words`, with commas between them, in their names")
	flag.StringVar(&o.json, "json", "", "write the figures to this `file` too")
	flag.StringVar(&o.dir, "dir", "", "`directory` for the targets' files, 1 GiB each (default that of temporary files)")
	flag.StringVar(&o.ours, "ours", "bin/csi-ietd", "the csi-ietd to measure")
	flag.Var(&o.peers, "peer", "another csi-ietd to set beside it, as `NAME=PATH`; may be repeated")
	flag.BoolVar(&o.noTgt, "no-tgt", false, "leave tgt out")
	flag.IntVar(&o.idle, "idle", 1000, "`sessions` of the case of idle ones")
	flag.Parse()
	// SIGHUP too: a terminal that is closed shall leave no target behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, o); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run prints what was measured, also where some of it could not be, and then has an error.
func run(ctx context.Context, o options) (err error) {
	chosen, idle, err := choose(o.cases)
	switch {
	case err != nil:
		return err
	case flag.NArg() > 0 || o.rounds < 1 || o.secs < 1 || o.idle < 1:
		return errors.New("see -help")
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	m, err := lookAtMachine(b.dir)
	if err != nil {
		return err
	}
	fmt.Print(m)
	before, err := look()
	if err != nil {
		return err
	}
	r := newReport(o.rounds)
	if len(chosen) > 0 {
		if err := b.cases(ctx, chosen, r); err != nil {
			return err
		}
	}
	if idle {
		if err := b.idle(ctx, r); err != nil {
			return err
		}
	}
	after, err := look()
	if err != nil {
		return err
	}
	m.during(before, after)
	fmt.Print(r, m.verdict())
	if o.json != "" {
		if err := r.write(o.json, m); err != nil {
			return err
		}
	}
	if len(r.failed) > 0 {
		return fmt.Errorf("some of it failed:\n  %s", strings.Join(r.failed, "\n  "))
	}
	return nil
}
