// Package lab is a small data centre for tests: User Mode Linux guests with a
// kernel initiator of their own, a storage network that can be cut, and
// csi-ietd's controller and node plugin running where they would in a cluster.
//
// [Main] re-executes the program in namespaces of its own (network, mounts,
// processes). All that a lab makes lives in them: when the program ends, or is
// killed in any way, the kernel takes the rest down with it. What is left is
// one directory of logs, and only when the run failed.
//
//	func TestMain(m *testing.M) { os.Exit(lab.Main(m.Run)) }
//
//	l, err := lab.New(ctx, lab.Config{Name: "attach"})
//	defer l.Close()
//	node1, err := l.Boot(ctx, lab.GuestConfig{Name: "node-1"})
//	out, err := node1.Output(ctx, "uname", "-a")
//
// Addresses: the storage network is 10.77.0.0/24 and the control network
// 10.78.0.0/24; the lab itself is .1 on both, the first guest .11.
package lab
