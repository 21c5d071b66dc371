package chart

import (
	"fmt"
	"reflect"
)

// immutable are the fields that Kubernetes does not let an upgrade change, by
// kind. An object of these that is no more is no error: helm deletes it.
var immutable = map[string][][]string{
	"StatefulSet": {
		{"spec", "serviceName"}, {"spec", "selector"}, {"spec", "podManagementPolicy"}, {"spec", "volumeClaimTemplates"},
	},
	"DaemonSet": {{"spec", "selector"}},
	"Service":   {{"spec", "clusterIP"}},
	"CSIDriver": {
		{"spec", "attachRequired"}, {"spec", "fsGroupPolicy"}, {"spec", "volumeLifecycleModes"},
	},
	"StorageClass": {
		{"provisioner"}, {"parameters"}, {"reclaimPolicy"}, {"volumeBindingMode"},
	},
	"ClusterRoleBinding": {{"roleRef"}},
	"RoleBinding":        {{"roleRef"}},
}

// mayNotGo are the kinds that hold what users have: an upgrade that leaves one
// out or renames it takes volumes away from who uses them.
var mayNotGo = map[string]bool{"StatefulSet": true, "DaemonSet": true, "CSIDriver": true, "StorageClass": true}

// upgradeErrors says what Kubernetes or its users would refuse of an upgrade.
func upgradeErrors(before, after []object) []error {
	var errs []error
	for _, was := range before {
		kind := was.str("kind")
		is := find(after, kind, was.str("metadata", "name"))
		if is == nil {
			if mayNotGo[kind] {
				errs = append(errs, fmt.Errorf("%s is gone", was.name()))
			}
			continue
		}
		for _, path := range immutable[kind] {
			if !reflect.DeepEqual(was.at(path...), is.at(path...)) {
				errs = append(errs, fmt.Errorf("%s: %v was %v and is %v", was.name(), path, was.at(path...), is.at(path...)))
			}
		}
	}
	return errs
}
