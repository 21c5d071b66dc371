// Command writer holds one file or device open and does with it what its
// standard input says, a line a command, so that a test decides what happens
// before an outage and what after it, on the same open file:
//
//	write FIRST COUNT SEED   write blocks (of 4096 bytes) FIRST to FIRST+COUNT-1
//	check FIRST COUNT SEED   read them back: are they what write wrote?
//	writeout                 have the page cache written out, not flushed (sync_file_range)
//	sync, datasync           fsync, fdatasync
//
// It answers each with a line, "ok" or what went wrong. With -count SEED it
// counts instead the blocks of that seed in a file, such as a volume's data in
// the pool, wherever they lie.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	direct := flag.Bool("direct", false, "past the page cache (O_DIRECT)")
	seed := flag.Int64("count", -1, "count the blocks of this `seed`")
	flag.Parse()
	if *seed >= 0 {
		n, err := count(flag.Arg(0), *seed)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(n)
		return
	}
	w, err := open(flag.Arg(0), *direct)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
	if err := obey(w, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// commands maps a word to what it does; those that take an extent have three
// numbers behind the word.
var commands = map[string]struct {
	extent bool
	run    func(*writer, extent) error
}{
	"write":    {true, (*writer).write},
	"check":    {true, (*writer).check},
	"writeout": {false, func(w *writer, _ extent) error { return w.writeout() }},
	"sync":     {false, func(w *writer, _ extent) error { return w.file.Sync() }},
	"datasync": {false, func(w *writer, _ extent) error { return w.datasync() }},
}

// obey answers every line of in with one on out until in ends.
func obey(w *writer, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		answer := "ok"
		if err := execute(w, lines.Text()); err != nil {
			answer = err.Error()
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func execute(w *writer, line string) error {
	var word string
	var r extent
	n, _ := fmt.Sscan(line, &word, &r.first, &r.count, &r.seed) // n tells all
	command := commands[word]
	if command.run == nil || command.extent != (n == 4) || r.first < 0 || r.count < 0 {
		return fmt.Errorf("no such command: %q", line)
	}
	return command.run(w, r)
}
