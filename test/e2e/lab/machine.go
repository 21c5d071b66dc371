package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

// Machine is where processes of the lab run: a guest, or the lab's own
// namespace outside the guests. All its methods act there.
type Machine struct {
	*agent.Client
	Name    string
	Storage string // address on the storage network
	bin     string // directory with the lab's programs, as seen there
	logs    string // directory for logs, as seen there
}

// Output runs a command and returns its standard output without the last line
// end. A command that fails is an error with what it printed.
func (m *Machine) Output(ctx context.Context, args ...string) (string, error) {
	return m.output(ctx, agent.Command{Args: args}, "")
}

// Shell runs a script with sh -e and returns its standard output.
func (m *Machine) Shell(ctx context.Context, script string) (string, error) {
	return m.output(ctx, agent.Command{Args: []string{"sh", "-e"}}, script)
}

func (m *Machine) output(ctx context.Context, cmd agent.Command, stdin string) (string, error) {
	var out, errs bytes.Buffer
	exit, err := m.Run(ctx, cmd, agent.Streams{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs})
	text := strings.TrimRight(out.String(), "\n")
	if err == nil && !exit.Success() {
		err = &CommandError{Exit: exit, Stderr: strings.TrimSpace(errs.String()), Stdout: text}
	}
	if err != nil {
		return text, fmt.Errorf("%s: %s: %w", m.Name, firstLine(strings.Join(cmd.Args, " ")+" "+stdin), err)
	}
	return text, nil
}

// CommandError is a command that ended without success.
type CommandError struct {
	Exit           agent.Exit
	Stdout, Stderr string
}

func (e *CommandError) Error() string {
	return strings.TrimSpace(e.Exit.String() + ": " + strings.Join([]string{e.Stderr, e.Stdout}, " "))
}

// ExitCode returns the status of a command that failed, or -1 if err is not of
// that kind.
func ExitCode(err error) int {
	var failed *CommandError
	if errors.As(err, &failed) {
		return failed.Exit.Code
	}
	return -1
}

func firstLine(s string) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if rest != "" {
		line += " ..."
	}
	return line
}
