package lab

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestKeepAwake: a guest's process gets SIGALRM again and again, but not before
// it can bear it, and the sender ends with it.
func TestKeepAwake(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := read.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `sleep 1.5; trap 'echo woken' ALRM; echo ready; while :; do sleep 60 & wait $!; kill $!; done`)
	cmd.Stdout = write
	p, err := turnOn(cmd)
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	guest := &Guest{power: p}
	defer guest.Kill()
	lines := bufio.NewScanner(read)
	for _, want := range []string{"ready", "woken", "woken"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("it says %q, not %q: %v", lines.Text(), want, lines.Err())
		}
	}
	guest.Kill()
	if p.life.Err() == nil {
		t.Error("it is gone and has power")
	}
}
