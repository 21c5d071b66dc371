package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

// BlockSize is the size of a [Writer]'s blocks in bytes.
const BlockSize = 4096

// Writer is a program in a guest that holds one file or device open through
// all that happens to the storage under it. Its methods wait for the kernel's
// answer, for as long as that takes. They must not be called at the same time,
// nor after one that was given up because its context ended.
type Writer struct {
	commands *io.PipeWriter
	answers  chan string // closed when the program has ended
	cancel   context.CancelFunc
	tasks    sync.WaitGroup
	err      error // of the program; valid once answers is closed
}

// OpenWriter opens path in the guest, O_DIRECT if direct.
func (g *Guest) OpenWriter(ctx context.Context, path string, direct bool) (*Writer, error) {
	binary, err := g.lab.Binary(g.Machine, writer)
	if err != nil {
		return nil, err
	}
	args := []string{binary, fmt.Sprintf("-direct=%t", direct), path}
	stdin, commands := io.Pipe()
	stdout, output := io.Pipe()
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &Writer{commands: commands, answers: make(chan string), cancel: cancel}
	w.tasks.Go(func() {
		exit, err := g.Run(life, agent.Command{Args: args}, agent.Streams{Stdin: stdin, Stdout: output})
		w.err = errors.Join(err, fmt.Errorf("the writer of %s on %s ended: %v", path, g.Name, exit))
		stdin.CloseWithError(w.err)
		output.CloseWithError(io.EOF)
	})
	w.tasks.Go(func() {
		defer close(w.answers)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			select {
			case w.answers <- lines.Text():
			case <-life.Done():
			}
		}
	})
	if err := w.answer(ctx); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// Close ends the program. Where the kernel holds it, it ends later.
func (w *Writer) Close() {
	w.cancel()
	w.commands.Close()
	w.tasks.Wait()
}

// WriterError is the kernel's refusal, in words.
type WriterError string

func (e WriterError) Error() string { return string(e) }

func (w *Writer) do(ctx context.Context, format string, args ...any) error {
	if _, err := fmt.Fprintf(w.commands, format+"\n", args...); err != nil {
		return err
	}
	return w.answer(ctx)
}

func (w *Writer) answer(ctx context.Context) error {
	select {
	case line, ok := <-w.answers:
		switch {
		case !ok:
			return w.err
		case line != "ok":
			return WriterError(line)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Write writes count blocks from first on; seed says what is in them.
func (w *Writer) Write(ctx context.Context, first, count, seed int) error {
	return w.do(ctx, "write %d %d %d", first, count, seed)
}

// Check reads blocks from the device and compares them with what Write wrote.
func (w *Writer) Check(ctx context.Context, first, count, seed int) error {
	return w.do(ctx, "check %d %d %d", first, count, seed)
}

// Writeout hands the page cache to the device, and flushes nothing
// (sync_file_range).
func (w *Writer) Writeout(ctx context.Context) error { return w.do(ctx, "writeout") }

// Sync is fsync.
func (w *Writer) Sync(ctx context.Context) error { return w.do(ctx, "sync") }

// Datasync is fdatasync.
func (w *Writer) Datasync(ctx context.Context) error { return w.do(ctx, "datasync") }

// CountBlocks returns how many blocks of a seed are in a file on the machine,
// wherever they lie in it.
func (l *Lab) CountBlocks(ctx context.Context, m *Machine, path string, seed int) (int, error) {
	binary, err := l.Binary(m, writer)
	if err != nil {
		return 0, err
	}
	out, err := m.Output(ctx, binary, "-count", strconv.Itoa(seed), path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(out)
}
