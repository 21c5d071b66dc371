package iscsitarget_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// bystander does I/O beside an attack until the test ends, and fails the test
// when any of it fails.
func (r *rig) bystander() {
	c := r.login(200)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				if i == 0 {
					r.Error("the bystander did nothing")
				}
				return
			default:
			}
			data := pattern(byte(i), 8*block)
			w, err := c.TryDo(write(1000, data))
			if err != nil || w.Status != 0 {
				r.Errorf("bystander's write %d: %v, %v", i, w, err)
				return
			}
			got, err := c.TryDo(iscsitest.Command{CDB: iscsitest.Read(1000, 8), In: 8 * block})
			if err != nil || got.Status != 0 || !bytes.Equal(got.Data, data) {
				r.Errorf("bystander's read %d: %v, %v", i, got, err)
				return
			}
		}
	})
	r.Cleanup(func() { close(stop); wg.Wait(); c.Alive() })
}

// underAttack is a server with a bystander.
func underAttack(t *testing.T) *rig {
	r := newRig(t, iscsitarget.Options{LoginTimeout: 2 * time.Second})
	r.permit(iscsitarget.Grant{Initiator: node})
	r.bystander()
	return r
}

const names = "InitiatorName=" + node + "\x00TargetName=" + target + "\x00"

// Every opcode before login, with every length: the connection is closed.
func TestAttackOpcodesBeforeLogin(t *testing.T) {
	r := underAttack(t)
	for op := range 256 {
		if pdu.Opcode(op&0x3f) == pdu.OpLoginRequest {
			continue
		}
		for _, n := range []int{0, 48, 8192} {
			c := r.dial(1)
			var h pdu.BHS
			h[0], h[1] = byte(op), byte(op*7)
			_ = c.TrySend(h, make([]byte, n))
			if got := c.ExpectClosed(); len(got) != 0 {
				t.Fatalf("opcode %#02x was answered: %x", op, got[0].BHS)
			}
		}
	}
}

// Every other opcode during login is answered with "invalid during login", and the
// connection is closed.
func TestAttackOpcodesDuringLogin(t *testing.T) {
	r := underAttack(t)
	for op := range pdu.Opcode(64) {
		if op == pdu.OpLoginRequest {
			continue
		}
		c := r.dial(1)
		if _, _, err := c.LoginStep(pdu.LoginRequest{CSG: pdu.StageOperational}, []byte(names)); err != nil {
			t.Fatal(err)
		}
		var h pdu.BHS
		h[0] = byte(op)
		c.Send(h, []byte("junk"))
		got := c.ExpectClosed()
		if len(got) != 1 || got[0].BHS.Opcode() != pdu.OpLoginResponse {
			t.Fatalf("opcode %#02x: %d PDUs", byte(op), len(got))
		}
		if resp := pdu.ParseLoginResponse(&got[0].BHS); resp.Status != pdu.LoginInvalidDuring || resp.ISID != c.ISID || resp.ITT != 1 || got[0].BHS.StatSN() != c.ExpStatSN {
			t.Fatalf("opcode %#02x: %+v", byte(op), resp)
		}
	}
}

// A PDU that says a length beyond what is taken, or ends early, at each stage of
// a connection's life.
func TestAttackLengths(t *testing.T) {
	r := underAttack(t)
	for name, enter := range map[string]func() *iscsitest.Client{
		"before login": func() *iscsitest.Client { return r.dial(1) },
		"in login": func() *iscsitest.Client {
			c := r.dial(1)
			if _, _, err := c.LoginStep(pdu.LoginRequest{CSG: pdu.StageOperational}, []byte(names)); err != nil {
				t.Fatal(err)
			}
			return c
		},
		"in a session": func() *iscsitest.Client { return r.login(1) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{8193, 256<<10 + 1, 1<<24 - 1} {
				if name == "in a session" && n <= 256<<10 {
					continue
				}
				c := enter()
				h := pdu.LoginRequest{CSG: pdu.StageOperational, ISID: c.ISID, ITT: 1}.Header()
				h.SetDataLen(n)
				_ = c.SendRaw(h[:])
				c.ExpectClosed()
			}
			whole := iscsitest.Encode(pdu.LoginRequest{CSG: pdu.StageOperational, ITT: 1}.Header(), []byte("abcde"))
			for n := range len(whole) {
				c := enter()
				_ = c.SendRaw(whole[:n])
				_ = c.Close()
			}
		})
	}
	eventually(t, "the end of the attackers' sessions", func() bool { return len(r.Sessions()) == 1 })
}

// Text that is none, too much of it, and chains that do not end.
func TestAttackLoginText(t *testing.T) {
	r := underAttack(t)
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "X%d=\x00", i)
	}
	for name, data := range map[string]string{
		"thousand keys": names + many.String()[:min(many.Len(), 8192-len(names))], "long key": strings.Repeat("K", 8000) + "=1\x00",
		"long value": names + "X-a=" + strings.Repeat("v", 8000), "boundary 8189": strings.Repeat("A", 8189), "boundary 8192": strings.Repeat("A", 8192),
		"NULs": strings.Repeat("\x00", 8192), "equals": strings.Repeat("=", 8192), "binary": string(pattern(1, 8192)),
		"long name": "InitiatorName=iqn." + strings.Repeat("x", 8000) + "\x00", "percent": "InitiatorName=iqn.%s%n%x\x00TargetName=%n\x00",
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial(1)
			req := pdu.LoginRequest{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature}
			if _, _, err := c.LoginStep(req, []byte(data)); err == nil && name != "long value" {
				t.Error("in")
			}
			_ = c.Close()
		})
	}
	for name, part := range map[string]string{"empty": "", "full": strings.Repeat("x", 8192), "small": "x"} {
		t.Run("endless chain, "+name, func(t *testing.T) {
			c := r.dial(1)
			for range 10000 {
				if _, _, err := c.LoginStep(pdu.LoginRequest{Continue: true, CSG: pdu.StageOperational}, []byte(part)); err != nil {
					return
				}
			}
			t.Error("the chain did not end")
		})
	}
}

// Bytes at random, at every stage of a connection's life.
func TestAttackGarbage(t *testing.T) {
	r := underAttack(t)
	random := rand.New(rand.NewPCG(1, 2))
	garbage := func() []byte {
		b := make([]byte, 48*(1+random.IntN(40)))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		for i := 0; i < len(b); i += 48 { // headers that get further than the length check
			b[i+4], b[i+5], b[i+6] = byte(random.IntN(2)), 0, byte(random.IntN(4))
			if random.IntN(2) == 0 {
				b[i] &= 0x47
			}
		}
		return b
	}
	for range 300 {
		c := r.dial(1)
		_ = c.SendRaw(garbage())
		_ = c.Close()
		c = r.dial(1)
		_, _, _ = c.LoginStep(pdu.LoginRequest{CSG: pdu.StageOperational}, []byte(names))
		_ = c.SendRaw(garbage())
		_ = c.Close()
		c = r.dial(byte(2 + random.IntN(3)))
		if c.TryLogin(plain()) != nil {
			continue
		}
		_ = c.SendRaw(garbage())
		for range random.IntN(3) {
			_, _ = c.TryRecv(5 * time.Millisecond)
		}
		_ = c.Close()
	}
	eventually(t, "the end of the attackers' sessions", func() bool { return len(r.Sessions()) == 1 })
}

// Sessions that say one thing and do another: they cost themselves.
func TestAttackInSession(t *testing.T) {
	r := underAttack(t)
	for name, attack := range map[string]func(*iscsitest.Client){
		"Data-Out flood": func(c *iscsitest.Client) {
			for i := range uint32(2000) {
				_ = c.TrySend(pdu.DataOut{ITT: i, TTT: i * 77, Final: i%2 == 0}.Header(), pattern(1, 100))
			}
		},
		"R2Ts never answered": func(c *iscsitest.Client) {
			for range 100 {
				c.Start(iscsitest.Command{CDB: iscsitest.Write(0, 2048), Out: make([]byte, 1<<20), Hold: true})
			}
		},
		"unsolicited data never sent": func(c *iscsitest.Client) {
			for range 100 {
				h := c.Header(iscsitest.Command{CDB: iscsitest.Write(0, 512), Out: make([]byte, 256<<10)}, c.ITT())
				h.Final = false
				c.CmdSN++
				_ = c.TrySend(h.Header(), nil)
			}
		},
		"answers never read": func(c *iscsitest.Client) {
			for range 128 {
				h := c.Header(iscsitest.Command{CDB: iscsitest.Read(0, 2048), In: 1 << 20}, c.ITT())
				c.CmdSN++
				_ = c.TrySend(h.Header(), nil)
			}
		},
		"immediate commands": func(c *iscsitest.Client) {
			for range 1000 {
				_ = c.TrySend(c.Header(iscsitest.Command{CDB: iscsitest.SynchronizeCache(), Urgent: true}, c.ITT()).Header(), nil)
			}
		},
		"resets": func(c *iscsitest.Client) {
			for i := range uint32(500) {
				_ = c.TrySend(pdu.TaskManagement{Immediate: true, Function: pdu.AbortTaskSet, ITT: i, CmdSN: c.CmdSN}.Header(), nil)
			}
		},
		"window": func(c *iscsitest.Client) {
			for i := range uint32(1000) {
				h := c.Header(iscsitest.Command{CDB: iscsitest.TestUnitReady()}, i)
				h.CmdSN += i * 0x01000193
				_ = c.TrySend(h.Header(), nil)
			}
		},
		"expected lengths": func(c *iscsitest.Client) {
			for i := range 100 {
				huge := uint32(0xffffffff)
				h := c.Header(iscsitest.Command{CDB: iscsitest.Write(0, i), Expect: &huge}, c.ITT())
				c.CmdSN++
				_ = c.TrySend(h.Header(), nil)
			}
		},
		"CDBs at random": func(c *iscsitest.Client) {
			for i := range 2000 {
				h := c.Header(iscsitest.Command{CDB: pattern(byte(i), 16), In: uint32(i)}, c.ITT())
				h.CDB[0], h.LUN[1] = byte(i), byte(i/256)
				switch byte(i) {
				case 0x04, 0x0a, 0x1b, 0x2a, 0x41, 0x42, 0x48, 0x93:
					continue // what changes the medium would spoil what the bystander reads
				case 0x16, 0x56, 0x5f:
					continue // a reservation keeps the bystander out by right
				}
				for _, control := range []int{5, 9, 11, 15} {
					h.CDB[control] &^= 1 << 2 // NACA: an ACA condition holds the bystander up by right
				}
				h.Immediate = true
				_ = c.TrySend(h.Header(), nil)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.login(1)
			attack(c)
			<-time.After(soon)
			_ = c.Close()
		})
	}
	eventually(t, "the end of the attackers' sessions", func() bool { return len(r.Sessions()) == 1 })
}

// Digests that are wrong, thousands of them: each damaged PDU is rejected and
// costs nothing, a damaged header ends its own session alone.
func TestAttackDigests(t *testing.T) {
	r := underAttack(t)
	digested := iscsitest.Login{Initiator: node, Target: target, Keys: iscsitest.With("HeaderDigest=CRC32C", "DataDigest=CRC32C")}
	c := r.dial(1)
	c.Login(digested)
	c.Ready()
	data := pattern(1, block)
	for i := range 2000 {
		var h pdu.BHS
		switch i % 3 {
		case 0:
			h = c.Header(iscsitest.Command{CDB: iscsitest.Write(5, 1), Out: data}, c.ITT()).Header()
		case 1:
			h = pdu.DataOut{Final: true, ITT: c.ITT(), TTT: uint32(i)}.Header()
		case 2:
			h = pdu.TextRequest{Final: true, ITT: c.ITT(), TTT: pdu.NoTag, CmdSN: c.CmdSN}.Header()
		}
		b := c.Encode(h, data)
		b[len(b)-1-i%(block+4)] ^= byte(1 << (i % 8))
		if err := c.SendRaw(b); err != nil {
			t.Fatal(err)
		}
		if p := c.Expect(pdu.OpReject); pdu.ParseReject(&p.BHS).Reason != pdu.RejectDataDigest {
			t.Fatalf("reason %#02x", pdu.ParseReject(&p.BHS).Reason)
		}
	}
	good(t, c.Do(write(0, data)))
	r.holds(5, make([]byte, block))
	for i := range 50 {
		c := r.dial(2)
		c.Login(digested)
		b := c.Encode(pdu.NopOut{Immediate: true, ITT: 1, TTT: pdu.NoTag, CmdSN: c.CmdSN}.Header(), nil)
		b[i] ^= 1
		_ = c.SendRaw(append(b, make([]byte, 1024)...)) // for a header that became longer
		c.ExpectClosed()
	}
	c.Alive()
}
