// Package initiator attaches volumes with the host's open-iscsi: a thin layer
// over iscsiadm, open-iscsi's record files and sysfs.
//
// What it relies on, as read and tried with open-iscsi 2.1.8:
//
//   - iscsiadm speaks to iscsid over an abstract socket, so it runs in
//     iscsid's network namespace, and its records lie in iscsid's mount
//     namespace; this process may have others.
//   - A static node record is a text file, nodes/<iqn>/<ip>,<port> or, with a
//     portal group tag, nodes/<iqn>/<ip>,<port>,<tag>/<iface>, under /etc/iscsi
//     or /var/lib/iscsi. CHAP secrets are lines of it. They are written into
//     the file: a command line is visible to everybody.
//   - The records are guarded by a lock that is a second link, lock.write, to
//     the file lock in /run/lock/iscsi. Who dies with it stays its holder.
//   - A session's state, name, CHAP name and disks are in
//     /sys/class/iscsi_session. Nothing here uses /dev/disk/by-path.
//
// Known gaps: a portal that did not answer at Attach is not tried again later;
// transports other than tcp are not used.
package initiator
