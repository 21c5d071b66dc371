package metrics

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// Sessions is what the iSCSI target knows of its sessions:
// [iscsitarget.Server].
type Sessions interface {
	Sessions() []iscsitarget.SessionStatus
}

// session is one session as it is shown.
type session struct {
	Target       string    `json:"target,omitempty"`
	Initiator    string    `json:"initiator"`
	ISID         string    `json:"isid"`
	TSIH         uint16    `json:"tsih"`
	Discovery    bool      `json:"discovery,omitempty"`
	Since        time.Time `json:"since"`
	Commands     uint64    `json:"commands"`
	BytesRead    uint64    `json:"bytesRead"`
	BytesWritten uint64    `json:"bytesWritten"`
	Remote       []string  `json:"remote"`
}

// SessionsHandler lists the sessions as JSON. They hold names and addresses,
// and no secret.
func SessionsHandler(s Sessions) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		shown := []session{}
		for _, st := range s.Sessions() {
			one := session{
				Target: st.Target, Initiator: st.Initiator, ISID: st.ISID, TSIH: st.TSIH, Discovery: st.Discovery,
				Since: st.Since, Commands: st.Commands, BytesRead: st.BytesRead, BytesWritten: st.BytesWritten,
			}
			for _, c := range st.Connections {
				one.Remote = append(one.Remote, c.Remote)
			}
			shown = append(shown, one)
		}
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(shown) // whoever asked may have gone
	})
}
