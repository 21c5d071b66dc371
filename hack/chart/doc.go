// Package chart tests charts/csi-ietd and the plain manifests that are made of
// it: it renders the chart with hack/helm for every Kubernetes version that is
// supported, and validates the result against that version's schema.
//
// The schemas are those that Kubernetes publishes in k8s.io/client-go for
// server-side apply: fields that a version does not know, values of the wrong
// type and duplicates in lists that are keyed are errors. What is missing and
// what a value may be, only an API server knows: test/e2e asks one.
package chart
