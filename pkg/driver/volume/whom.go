package volume

// OrchestratorPrefix begins the parameters that Kubernetes adds on its own;
// they say whom a volume is for, not what it is.
const OrchestratorPrefix = "csi.storage.k8s.io/"

// Whom says for whom Kubernetes had a volume made: names for people, as the
// provisioner's --extra-create-metadata gives them. Each may be empty, and none
// is kept up to date.
type Whom struct{ PersistentVolume, Namespace, Claim string }

// Whom reads the names from the parameters that the volume was made with.
func (v Volume) Whom() Whom { return WhomOf(v.Parameters) }

// WhomOf reads the names from the parameters of a volume to make.
func WhomOf(parameters map[string]string) Whom {
	return Whom{
		PersistentVolume: parameters[OrchestratorPrefix+"pv/name"],
		Namespace:        parameters[OrchestratorPrefix+"pvc/namespace"],
		Claim:            parameters[OrchestratorPrefix+"pvc/name"],
	}
}
