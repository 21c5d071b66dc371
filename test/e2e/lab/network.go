package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
)

// The two networks: 10.77.0.0/24 carries iSCSI and can be cut, 10.78.0.0/24
// carries the harness's own traffic and never is.
const (
	storageBridge  = "storage"
	controlBridge  = "control"
	storageAddress = "10.77.0.1"
	controlAddress = "10.78.0.1"
)

func storageOf(index int) string { return fmt.Sprintf("10.77.0.%d", 10+index) }
func controlOf(index int) string { return fmt.Sprintf("10.78.0.%d", 10+index) }

// ip runs one ip(8) command in the lab's namespace.
func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func ips(commands ...string) error {
	for _, args := range commands {
		if err := ip(args); err != nil {
			return err
		}
	}
	return nil
}

func makeBridges() error {
	return ips(
		"link add "+storageBridge+" type bridge", "addr add "+storageAddress+"/24 dev "+storageBridge, "link set "+storageBridge+" up",
		"link add "+controlBridge+" type bridge", "addr add "+controlAddress+"/24 dev "+controlBridge, "link set "+controlBridge+" up",
	)
}

func removeBridges() error {
	return errors.Join(ip("link del "+storageBridge), ip("link del "+controlBridge))
}

func storageTap(index int) string { return fmt.Sprintf("st%d", index) }
func controlTap(index int) string { return fmt.Sprintf("ct%d", index) }

func makeTaps(index int) error {
	st, ct := storageTap(index), controlTap(index)
	return ips(
		"tuntap add dev "+st+" mode tap", "link set "+st+" master "+storageBridge+" up",
		"tuntap add dev "+ct+" mode tap", "link set "+ct+" master "+controlBridge+" up",
	)
}

func removeTaps(index int) error {
	return errors.Join(ip("link del "+storageTap(index)), ip("link del "+controlTap(index)))
}

// doorbell is the listener that machines announce themselves to, by address.
type doorbell struct {
	net.Listener
	rings chan string
}

func listenForGuests(ctx context.Context) (*doorbell, error) {
	l, err := net.Listen("tcp", controlAddress+":0")
	if err != nil {
		return nil, err
	}
	d := &doorbell{l, make(chan string)}
	go d.serve(ctx) // ends when Close is called on the listener
	return d, nil
}

func (d *doorbell) serve(ctx context.Context) {
	for {
		conn, err := d.Accept()
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		conn.Close()
		select {
		case d.rings <- host:
		case <-ctx.Done():
			return
		}
	}
}
