package command

import (
	"runtime"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// addProcessors gives Go as many processors more as threads of the target may wait for
// initiators: otherwise those would keep the others from working.
func addProcessors() { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + iscsitarget.WaitingThreads) }
