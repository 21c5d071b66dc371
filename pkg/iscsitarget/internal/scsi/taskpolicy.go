package scsi

// QueueError is the QERR field of the control mode page (SPC-4 section 7.5.8):
// what becomes of the other tasks when one ends with CHECK CONDITION.
type QueueError uint8

// The values of QERR.
const (
	KeepTasks    QueueError = 0 // nothing
	AbortTaskSet QueueError = 1 // all of the task set are aborted
	AbortOfNexus QueueError = 3 // those of the same I_T nexus are
)

// TaskPolicy is what the control mode page says about the tasks of a logical unit
// (SPC-4 section 7.5.8).
type TaskPolicy struct {
	// QueueError is QERR.
	QueueError QueueError `json:"queueError,omitempty"`
	// TaskAborted is TAS: tasks that another I_T nexus aborts end with status
	// TASK ABORTED. Otherwise they get no status, and their nexus a unit
	// attention.
	TaskAborted bool `json:"taskAborted,omitempty"`
	// SetPerNexus is TST 001b: each I_T nexus has a task set of its own.
	SetPerNexus bool `json:"setPerNexus,omitempty"`
}

// TaskPolicy is what holds now.
func (u *Unit) TaskPolicy() TaskPolicy { return u.settings.Load().TaskPolicy }

// TasksCleared establishes COMMANDS CLEARED BY ANOTHER INITIATOR for a nexus whose
// tasks at the unit another one has aborted (SAM-5 section 5.14).
func (u *Unit) TasksCleared(n *Nexus) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for l := range u.itls {
		if l.nexus == n {
			l.attentions.establish(attentionTasksCleared)
		}
	}
}

// CommandsCleared establishes SOME COMMANDS CLEARED BY ISCSI PROTOCOL EVENT at a LUN
// of the nexus (RFC 7143 section 11.14.5).
func (n *Nexus) CommandsCleared(lun [8]byte) {
	if l := n.lookup(lun); l != nil {
		l.attentions.establish(attentionProtocolEvent)
	}
}
