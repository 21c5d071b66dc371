package isns

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// tcpServer is a fake server on loopback.
func tcpServer(t *testing.T, s script) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.serve(nc)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// A server without ESI, or without SCN, still gets the registration.
func TestServerWithoutInquiries(t *testing.T) {
	address := tcpServer(t, func(m message) []byte {
		l, _ := parseAttrs(m.payload)
		_, asks := l.find(tagESIPort)
		switch {
		case m.function == devAttrReg && asks:
			return reply(m, ESINotAvailable, nil)
		case m.function == scnReg:
			return reply(m, SCNRejected, nil)
		}
		return honest(m)
	})
	x := run(t, Config{Server: address, EntityID: entityID}, quick, registration(disk))
	x.registers(t)
	eventually(t, "the log says both", func() bool {
		return strings.Contains(x.log.String(), "registering without") && strings.Contains(x.log.String(), "sends no notifications for a target")
	})
	x.stop()
}

// mailbox is an inbox on loopback whose client has registered disk with a server
// at 127.0.0.1.
func mailbox(t *testing.T) (*Client, string) {
	t.Helper()
	c, err := New(Config{Server: "127.0.0.1", EntityID: entityID, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c.reachedAt(loopback.Addr.Addr(), loopback.Addr.Addr())
	if c.inbox == nil {
		t.Fatal("no inbox")
	}
	t.Cleanup(c.closeInbox)
	c.setHave(registration(disk).resolve(loopback.Addr.Addr(), c.inboxPort(), true), true)
	return c, c.inbox.ln.Addr().String()
}

func ask(t *testing.T, address string, b []byte) (message, error) {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Write(b); err != nil {
		return message{}, err
	}
	return messageReader{nc, maxAnswer}.next()
}

func TestInbox(t *testing.T) {
	c, address := mailbox(t)
	at := portal{addr: loopback.Addr}
	question := func(id string, p portal) attrs {
		return append(attrs{{tagTimestamp, make([]byte, 8)}, text(tagEntityID, id)}, p.key()...)
	}
	told := func(target string) attrs {
		return attrs{text(tagNodeName, target), {tagTimestamp, make([]byte, 8)}, number(tagSCNBitmap, uint32(Added)), text(tagNodeName, initiator)}
	}
	raw := func(s string) []byte { return unhex(t, s) }
	for _, x := range []struct {
		name string
		f    function
		b    []byte
		want []byte // payload; nil: the connection ends
	}{
		{"ESI", esi, question(entityID, at).append(nil), answer(Success, question(entityID, at))},
		{"ESI of another entity", esi, question("other", at).append(nil), nil},
		{"ESI of another portal", esi, question(entityID, portal{addr: netip.MustParseAddrPort("127.0.0.1:1")}).append(nil), nil},
		{"ESI of nothing", esi, nil, nil},
		{"SCN", scn, told(disk).append(nil), answer(Success, told(disk)[:1])},
		{"SCN in capitals", scn, told(strings.ToUpper(disk)).append(nil), answer(Success, told(strings.ToUpper(disk))[:1])},
		{"SCN of another target", scn, told(tape).append(nil), answer(NoSuchEntry, nil)},
		{"SCN of nothing", scn, nil, answer(FormatError, nil)},
		{"malformed", esi, raw("00000020 000000ff"), answer(FormatError, nil)},
		{"a function of servers", devAttrReg, nil, answer(MessageNotSupported, nil)},
		{"a response", esi | response, answer(Success, nil), nil},
	} {
		got, err := ask(t, address, message{function: x.f, transaction: 77, payload: x.b}.append(nil))
		if x.want == nil {
			if err == nil {
				t.Errorf("%s: answered %+v", x.name, got)
			}
			continue
		}
		if err != nil || got.function != x.f|response || got.transaction != 77 || !bytes.Equal(got.payload, x.want) {
			t.Errorf("%s: %+v, %v, want %x", x.name, got, err, x.want)
		}
	}
	if waiting, more := c.news.take(); len(waiting) != 2 || more || waiting[0].Changes[0] != (Change{initiator, Added}) {
		t.Errorf("notifications: %+v", waiting)
	}
	if _, err := ask(t, address, message{function: esi, payload: make([]byte, maxInquiry+4)}.append(nil)); err == nil {
		t.Error("a message that is too long was answered")
	}
}

// Who is not the server is not heard.
func TestInboxOfStrangers(t *testing.T) {
	c, address := mailbox(t)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	nc, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	_, _ = nc.Write(message{function: scn, payload: text(tagNodeName, disk).append(nil)}.append(nil))
	if b, err := io.ReadAll(nc); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("answered %x, %v", b, err)
	}
	if waiting, _ := c.news.take(); len(waiting) != 0 {
		t.Errorf("believed %+v", waiting)
	}
}

// The inbox is where the server sees this host. When that is elsewhere all is
// registered from scratch, or the old port would remain at the server.
func TestInboxMoves(t *testing.T) {
	c, address := mailbox(t)
	c.replaced = true
	c.reachedAt(loopback.Addr.Addr(), loopback.Addr.Addr())
	if c.inbox.ln.Addr().String() != address || !c.replaced {
		t.Error("moved without a reason")
	}
	elsewhere := netip.MustParseAddr("127.0.0.3")
	c.reachedAt(elsewhere, loopback.Addr.Addr())
	if c.inbox.addr != elsewhere || c.replaced {
		t.Errorf("at %s, replaced %v", c.inbox.addr, c.replaced)
	}
	if nc, err := net.Dial("tcp", address); err == nil {
		nc.Close()
		t.Error("still at the old address")
	}
}

// One connection more than are taken is closed; one that ends makes room.
func TestInboxIsBounded(t *testing.T) {
	_, address := mailbox(t)
	inquiry := message{function: devAttrReg}.append(nil)
	var all []net.Conn
	for range maxInboxConns {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		all = append(all, nc)
	}
	eventually(t, "one too many is refused", func() bool {
		_, err := ask(t, address, inquiry)
		return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	})
	all[0].Close()
	eventually(t, "there is room again", func() bool {
		_, err := ask(t, address, inquiry)
		return err == nil
	})
}

func TestNewsAreBounded(t *testing.T) {
	n := newNews()
	for range maxNews + 1 {
		n.put(Notification{Target: disk})
	}
	if waiting, more := n.take(); len(waiting) != maxNews || !more {
		t.Errorf("%d, %v", len(waiting), more)
	}
	if waiting, more := n.take(); len(waiting) != 0 || more {
		t.Errorf("again %d, %v", len(waiting), more)
	}
}
