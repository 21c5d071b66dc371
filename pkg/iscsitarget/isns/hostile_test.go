package isns

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever a server does, the client lets it go in bounded time, and tries
// again.
func TestHostileServer(t *testing.T) {
	for _, c := range []struct {
		name string
		s    script
		says string // in the log
		wait time.Duration
	}{
		{"silence", func(message) []byte { return nil }, "no answer", usual.call},
		{"wrong transaction", func(m message) []byte { m.transaction++; return honest(m) }, "answered by", 0},
		{"wrong function", func(m message) []byte { m.function = devDereg; return honest(m) }, "answered by", 0},
		{"a request for an answer", func(m message) []byte { return m.append(nil) }, "answered by", 0},
		{"no status", func(m message) []byte {
			return message{function: m.function | response, transaction: m.transaction}.append(nil)
		}, "no status", 0},
		{"wrong length", func(m message) []byte {
			b := honest(m)
			be.PutUint16(b[offLength:], 6)
			return b
		}, "no multiple of 4", 0},
		{"half an answer", func(m message) []byte { return honest(m)[:headerLen+2] }, "no answer", usual.call},
		{"wrong attribute length", func(m message) []byte {
			return message{function: m.function | response, transaction: m.transaction,
				payload: be.AppendUint32(answer(Success, nil), 32)}.append(nil)
		}, "behind the last attribute", 0},
		{"rubbish", func(message) []byte { return []byte(strings.Repeat("HTTP/1.1 400 Bad Request\r\n", 9)) }, "malformed", 0},
		{"refusal", func(m message) []byte { return reply(m, SourceUnauthorized, nil) }, "unauthorized", 0},
		{"two answers", func(m message) []byte { return append(honest(m), honest(m)...) }, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := imagine(t, Config{AccessControl: true}, piped(c.s))
				end := x.runFor(t, time.Minute)
				if end > usual.leave {
					t.Errorf("the end took %s", end)
				}
				if len(x.dials) < 3 || x.dials[1] != c.wait+usual.minBackoff {
					t.Errorf("connected at %v", x.dials)
				}
				if !strings.Contains(x.log.String(), c.says) {
					t.Errorf("the log does not say %q:\n%s", c.says, x.log)
				}
				if x.Allowed(disk, initiator) {
					t.Error("allowed by nobody")
				}
			})
		})
	}
}

// A server that has initiators told one by one, and does not come to an end, or
// tells nothing.
func TestEndlessWalk(t *testing.T) {
	for name, node := range map[string]attrs{
		"round and round": {none(tagDelimiter), text(tagNodeName, initiator), number(tagNodeType, nodeInitiator)},
		"nothing":         {none(tagDelimiter)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := imagine(t, Config{AccessControl: true}, piped(func(m message) []byte {
					switch m.function {
					case devAttrQry:
						return reply(m, InternalError, nil)
					case devGetNext:
						return reply(m, Success, node)
					}
					return honest(m)
				}))
				x.runFor(t, 10*time.Second)
				if len(x.dials) < 4 || x.Allowed(disk, initiator) {
					t.Errorf("connected at %v:\n%s", x.dials, x.log)
				}
			})
		})
	}
}

// A server that never stops answering.
func TestEndlessAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := imagine(t, Config{}, func() (net.Conn, error) {
			a, b := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, b) }()
			go func() {
				defer b.Close()
				_, _ = io.Copy(b, &endless{length: maxPDU})
			}()
			return a, nil
		})
		x.runFor(t, 10*time.Second)
		if len(x.dials) < 4 || !strings.Contains(x.log.String(), "longer than") {
			t.Errorf("connected at %v:\n%s", x.dials, x.log)
		}
	})
}

// A server that does not even read: the end is bounded all the same.
func TestDeafServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends []net.Conn
		x := imagine(t, Config{}, func() (net.Conn, error) {
			a, b := net.Pipe()
			ends = append(ends, b)
			return a, nil
		})
		if end := x.runFor(t, time.Minute); end > usual.leave {
			t.Errorf("the end took %s", end)
		}
		if len(x.dials) < 4 {
			t.Errorf("connected at %v", x.dials)
		}
		for _, b := range ends {
			b.Close()
		}
	})
}

// What comes between two requests is not of this protocol.
func TestUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := imagine(t, Config{}, func() (net.Conn, error) {
			a, b := net.Pipe()
			go script(honest).serve(b)
			time.AfterFunc(5*time.Second, func() { _, _ = b.Write(message{function: scn}.append(nil)) })
			return a, nil
		})
		x.runFor(t, 8*time.Second)
		if len(x.dials) < 2 || x.dials[1] != 6*time.Second || !strings.Contains(x.log.String(), "nobody asked for") {
			t.Errorf("connected at %v:\n%s", x.dials, x.log)
		}
	})
}
