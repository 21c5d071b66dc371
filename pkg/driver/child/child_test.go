package child

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunOutput(t *testing.T) {
	out, err := OS{}.Run(t.Context(), "printf", "%s", "hello")
	if err != nil || out != "hello" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestRunExitError(t *testing.T) {
	out, err := OS{}.Run(t.Context(), "sh", "-c", "echo half; echo broken >&2; exit 21")
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 21 || !strings.Contains(err.Error(), "broken") || out != "half\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if code, ok := ExitCode(err); code != 21 || !ok {
		t.Errorf("exit code %d, %v", code, ok)
	}
	if _, ok := ExitCode(context.Canceled); ok {
		t.Error("an error that is no exit has an exit code")
	}
}

func TestRunMissingProgram(t *testing.T) {
	if _, err := (OS{}).Run(t.Context(), "no-such-program"); !errors.Is(err, ErrNoProgram) {
		t.Errorf("got %v", err)
	}
}

func TestRunBoundsOutput(t *testing.T) {
	out, err := OS{}.Run(t.Context(), "head", "-c", "1000000", "/dev/zero")
	if err != nil || len(out) != maxOutput {
		t.Errorf("kept %d bytes, %v", len(out), err)
	}
}

func TestRunKillsTheWholeGroup(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		waitFor(t, func() bool { b, _ := os.ReadFile(pidFile); return strings.HasSuffix(string(b), "\n") })
	}()
	_, err := OS{}.Run(ctx, "sh", "-c", "sleep 1000 & echo $! > "+pidFile+"; wait")
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrStuck) {
		t.Fatalf("got %v", err)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return gone(pid) })
}

// gone reports whether a process has ended; an orphan may stay a zombie where
// nobody reaps it.
func gone(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(b), ") Z ") || syscall.Kill(pid, 0) == syscall.ESRCH
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Error("timeout")
			return
		}
	}
}

func TestDoLeavesWhatIsStuckToTheTracker(t *testing.T) {
	ctx, tracker := WithTracker(t.Context())
	ctx, cancel := context.WithCancel(ctx)
	block, entered := make(chan struct{}), make(chan struct{})
	go func() { <-entered; cancel() }()
	err := Do(ctx, "umount", func() error { close(entered); <-block; return nil })
	if !errors.Is(err, ErrStuck) || !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	select {
	case <-tracker.Idle():
		t.Fatal("idle while the call is stuck")
	default:
	}
	close(block)
	<-tracker.Idle()
}

func TestDoneIsIdleAtOnce(t *testing.T) {
	ctx, tracker := WithTracker(t.Context())
	for range 100 {
		if err := Do(ctx, "x", func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		select {
		case <-tracker.Idle():
		default:
			t.Fatal("not idle after Do returned")
		}
	}
}

func TestNothingStartsAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Do(ctx, "x", func() error { t.Error("ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := (OS{}).Run(ctx, "touch", filepath.Join(t.TempDir(), "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
