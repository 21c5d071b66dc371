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
// A volume has either a multipath map or one path. Several paths are logged in
// only where multipathd runs, and all but one are given up where it makes no
// map of them.
//
// Known gaps: a portal that did not answer at Attach is not tried again later;
// a map whose multipath.conf has no no_path_retry fails I/O as soon as every
// path is lost, whatever the replacement timeout; transports other than tcp are
// not used.
package initiator
