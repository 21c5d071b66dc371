package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"testing"
)

func TestMessageRoundTrip(t *testing.T) {
	want := request{Op: "run", ID: 7, Command: Command{Args: []string{"a", "b c"}, Env: []string{"K=v"}, TTY: true}, Data: []byte{0, 1, 255}}
	var wire bytes.Buffer
	if err := writeMessage(&wire, &want); err != nil {
		t.Fatal(err)
	}
	whole := wire.Bytes()
	var got request
	if err := readMessage(bytes.NewReader(whole), &got); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for n := range whole {
		if err := readMessage(bytes.NewReader(whole[:n]), &got); err == nil {
			t.Errorf("read a message of %d bytes from %d", len(whole), n)
		}
	}
}

// TestLimits: a length over the limit is refused before anything of that
// length is made.
func TestLimits(t *testing.T) {
	var v reply
	if err := readMessage(bytes.NewReader(binary.BigEndian.AppendUint32(nil, MaxMessage+1)), &v); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("message over the limit: %v", err)
	}
	if err := writeMessage(io.Discard, reply{Data: make([]byte, MaxMessage)}); err == nil {
		t.Error("wrote a message over the limit")
	}
	head := binary.BigEndian.AppendUint32([]byte{frameStdout}, maxFrame+1)
	if _, _, err := readFrame(bytes.NewReader(head), make([]byte, maxFrame)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("frame over the limit: %v", err)
	}
}

func TestFrameRoundTrip(t *testing.T) {
	var wire bytes.Buffer
	for _, payload := range []string{"", "x", "some more"} {
		if err := writeFrame(&wire, frameStderr, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	whole, buf := bytes.Clone(wire.Bytes()), make([]byte, maxFrame)
	for _, want := range []string{"", "x", "some more"} {
		kind, payload, err := readFrame(&wire, buf)
		if err != nil || kind != frameStderr || string(payload) != want {
			t.Errorf("got %q %q, %v, want %q", kind, payload, err, want)
		}
	}
	if _, _, err := readFrame(bytes.NewReader(whole[:len(whole)-1]), buf[:1]); err != nil {
		t.Errorf("the first frame: %v", err)
	}
	if _, _, err := readFrame(bytes.NewReader(whole[5+6:len(whole)-1]), buf); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a frame that breaks off: %v", err)
	}
}

// TestErrorsKeepTheirKind: what errors.Is says of an error it says of it on
// the other side.
func TestErrorsKeepTheirKind(t *testing.T) {
	_, absent := os.Open("/there/is/no/such/file")
	for err, kind := range map[error]error{
		absent:                                   fs.ErrNotExist,
		fmt.Errorf("making: %w", syscall.EEXIST): fs.ErrExist,
	} {
		var wire bytes.Buffer
		var r reply
		if writeMessage(&wire, failure(err)) != nil || readMessage(&wire, &r) != nil {
			t.Fatal("the reply did not get through")
		}
		if got := r.err(); !errors.Is(got, kind) || got.Error() != err.Error() {
			t.Errorf("got %v, want %v, which is %v", got, err, kind)
		}
	}
	other := failure(errors.New("of no kind"))
	if got := other.err(); errors.Unwrap(got) != nil || got.Error() != "of no kind" {
		t.Errorf("got %v", got)
	}
	if err := (&reply{}).err(); err != nil {
		t.Errorf("no error became %v", err)
	}
}

func TestExit(t *testing.T) {
	for _, tt := range []struct {
		exit    Exit
		success bool
		text    string
	}{
		{Exit{}, true, "exit status 0"},
		{Exit{Code: 3}, false, "exit status 3"},
		{Exit{Code: -1, Signal: syscall.SIGKILL}, false, "killed by killed"},
	} {
		if tt.exit.Success() != tt.success || tt.exit.String() != tt.text {
			t.Errorf("%v: success %v, want %q %v", tt.exit, tt.exit.Success(), tt.text, tt.success)
		}
	}
}
