// Package mount makes file systems and puts them, or raw block devices, where
// pods find them.
//
// Two rules decide its shape. A device is formatted only when it is proven
// empty, and no answer of a probe but "I looked and there is nothing" is such a
// proof. A mount counts only when the kernel's table says that the promised
// device lies at the promised place.
//
// Programs run as killable children; nothing waits for a dead target longer
// than its context.
package mount
