{{- define "csi-ietd.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Prefix of the names of all objects; 40 leaves room for what follows it. */}}
{{- define "csi-ietd.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "csi-ietd.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "csi-ietd.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selectors match: these never change. */}}
{{- define "csi-ietd.selector" -}}
app.kubernetes.io/name: {{ include "csi-ietd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "csi-ietd.labels" -}}
{{ include "csi-ietd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A pod's labels: without versions, which would replace pods for nothing. */}}
{{- define "csi-ietd.podLabels" -}}
{{ include "csi-ietd.selector" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Image reference of .image; .root is the chart's scope. */}}
{{- define "csi-ietd.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default (printf "v%s" .root.Chart.AppVersion) .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Who the storage node's processes are: the binary and the sidecars share the
CSI socket, which is its owner's alone. */}}
{{- define "csi-ietd.uid" -}}
{{- ternary 0 65532 .Values.storage.ioFlusher -}}
{{- end -}}

{{/* What a container that needs no privilege runs with. */}}
{{- define "csi-ietd.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* host:port of an address in an environment variable. */}}
{{- define "csi-ietd.hostPort" -}}
{{- if .root.Values.ipv6 -}}
{{- printf "[$(%s)]:%d" .env (int .port) -}}
{{- else -}}
{{- printf "$(%s):%d" .env (int .port) -}}
{{- end -}}
{{- end -}}

{{- define "csi-ietd.onPVC" -}}
{{- if eq .Values.storage.pool.type "persistentVolumeClaim" }}true{{ end -}}
{{- end -}}

{{/* The variable that kubelet makes of the portal's Service. */}}
{{- define "csi-ietd.portalHost" -}}
{{- printf "%s_PORTAL_SERVICE_HOST" (include "csi-ietd.fullname" . | upper | replace "-" "_") -}}
{{- end -}}

{{/* Probes of the http port; .local: it listens on the host's loopback alone. */}}
{{- define "csi-ietd.probes" -}}
{{- $port := ternary "port: http, host: 127.0.0.1" "port: http" .local -}}
# A pool with many volumes takes its time to be checked.
startupProbe:
  httpGet: {path: /healthz, {{ $port }}}
  periodSeconds: 2
  failureThreshold: 300
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, {{ $port }}}
  periodSeconds: 10
  failureThreshold: 6
  timeoutSeconds: 10
readinessProbe:
  httpGet: {path: /readyz, {{ $port }}}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{/* What the schema cannot say. */}}
{{- define "csi-ietd.check" -}}
{{- $s := .Values.storage -}}
{{- $theirs := (((lookup "storage.k8s.io/v1" "CSIDriver" "" "csi-ietd.io").metadata).annotations) | default dict -}}
{{- $owner := get $theirs "meta.helm.sh/release-name" -}}
{{- $where := get $theirs "meta.helm.sh/release-namespace" -}}
{{- if and $owner (or (ne $owner .Release.Name) (ne $where .Release.Namespace)) -}}
  {{- fail (printf "the driver csi-ietd.io is installed already, by the release %s in the namespace %s: a cluster has one; upgrade that release, or uninstall it first" $owner $where) -}}
{{- end -}}
{{- if not (include "csi-ietd.onPVC" .) -}}
  {{- if and (not $s.nodeName) (not $s.nodeSelector) -}}
    {{- fail "storage.nodeName is empty: name the node whose disk is to hold the volumes (--set storage.nodeName=NODE, see kubectl get nodes), or give storage.nodeSelector" -}}
  {{- end -}}
{{- else -}}
  {{- if $s.portals -}}
    {{- fail "storage.portals is for pool type hostPath: with persistentVolumeClaim the portal is the Service's address" -}}
  {{- end -}}
  {{- range .Values.storageClasses -}}
    {{- if eq .name $s.pool.persistentVolumeClaim.storageClassName -}}
      {{- fail (printf "storage.pool.persistentVolumeClaim.storageClassName %s is a class of csi-ietd itself: the pool's volume must come from another driver" .name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and $s.nodeName $s.nodeSelector -}}
  {{- fail "storage.nodeName and storage.nodeSelector are both set: give one of them" -}}
{{- end -}}
{{- if and $s.nodeName $s.affinity.nodeAffinity -}}
  {{- fail "storage.nodeName and storage.affinity.nodeAffinity are both set: give one of them" -}}
{{- end -}}
{{- $defaults := 0 -}}
{{- range .Values.storageClasses -}}{{- if .default -}}{{- $defaults = add1 $defaults -}}{{- end -}}{{- end -}}
{{- if gt (int $defaults) 1 -}}
  {{- fail "storageClasses: more than one has default: true" -}}
{{- end -}}
{{- end -}}
