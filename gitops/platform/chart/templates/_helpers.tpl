{{/* Name that everything of a release begins with. */}}
{{- define "hansa.name" -}}
{{- if contains "hansa" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-hansa" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Labels that pods are selected by: list of the release and a component. */}}
{{- define "hansa.selector" -}}
app.kubernetes.io/name: hansa
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "hansa.labels" -}}
{{ include "hansa.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
app.kubernetes.io/part-of: hansa
{{- end }}

{{- define "hansa.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{- define "hansa.settingsName" -}}
{{ .Values.settingsConfigMap | default (printf "%s-settings" (include "hansa.name" .)) }}
{{- end }}

{{/* What is no secret and the same for control planes and workers. */}}
{{- define "hansa.settingsData" -}}
{{- if and (not .Values.artifacts.url) (not .Values.artifacts.claim) }}
{{- fail "artifacts.url: control planes and workers must reach the same store: name a bucket (s3://bucket/prefix), or in artifacts.claim a PersistentVolumeClaim with ReadWriteMany" }}
{{- end -}}
HANSA_REGION: {{ .Values.region | quote }}
HANSA_ARTIFACTS_URL: {{ .Values.artifacts.url | default "/var/lib/hansa-artifacts" | quote }}
{{- with .Values.artifacts.endpoint }}
HANSA_ARTIFACTS_ENDPOINT: {{ . | quote }}
{{- end }}
{{- if .Values.keys.audit }}
HANSA_AUDIT_URL: {{ required "audit.url: name a bucket for the checkpoints of the audit trail (s3://bucket/prefix), or set keys.audit to false" .Values.audit.url | quote }}
{{- end }}
HANSA_NATS_URL: {{ .Values.nats.url | quote }}
{{- with .Values.nats.publicUrl }}
HANSA_NATS_PUBLIC_URL: {{ . | quote }}
{{- end }}
HANSA_NATS_REPLICAS: {{ .Values.nats.replicas | quote }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* A change of these settings starts pods anew. With a ConfigMap of yours its name does, as kustomize makes it. */}}
{{- define "hansa.annotations" -}}
{{- if .Values.settingsConfigMap -}}
hansa.dev/settings: {{ .Values.settingsConfigMap }}
{{- else -}}
hansa.dev/settings: {{ include "hansa.settingsData" . | sha256sum | trunc 16 | quote }}
{{- end }}
{{- end }}

{{/* What every pod is: nobody in particular, without the API server's token unless it says so. */}}
{{- define "hansa.pod" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: {{ index . 1 }}}
{{- with (index . 0).Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
enableServiceLinks: false
{{- end }}

{{- define "hansa.container" -}}
image: {{ include "hansa.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "hansa.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "hansa.selector" . | nindent 8 }}
{{- end }}

{{- define "hansa.envFrom" -}}
- configMapRef: {name: {{ include "hansa.settingsName" . }}}
{{- end }}

{{/* Settings of one component, as variables. */}}
{{- define "hansa.settings" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{/* Where a process shows its metrics: list of the release and the variable of its port. */}}
{{- define "hansa.metricsEnv" -}}
{{- with (index . 0).Values -}}
- {name: HANSA_METRICS_HOST, value: {{ .serve.host | quote }}}
- {name: {{ index $ 1 }}, value: {{ .metrics.port | quote }}}
{{- end }}
{{- end }}

{{- define "hansa.databaseEnv" -}}
- name: HANSA_DATABASE_APP_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.database.secret }}, key: {{ .Values.database.appUrlKey }}}}
- name: HANSA_DATABASE_SYSTEM_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.database.secret }}, key: {{ .Values.database.systemUrlKey }}}}
- {name: HANSA_KEY_PEPPER_FILE, value: /etc/hansa/keys/pepper}
{{- end }}

{{/* What control planes and workers are given alike. */}}
{{- define "hansa.engineEnv" -}}
{{- include "hansa.databaseEnv" . }}
- {name: HANSA_DATA_DIR, value: /var/lib/hansa}
- {name: HANSA_SECRETS_KEY_FILE, value: /etc/hansa/keys/key-encryption-keys}
{{- if .Values.keys.audit }}
- {name: HANSA_AUDIT_KEY_FILE, value: /etc/hansa/keys/audit-key}
{{- end }}
{{- if .Values.nats.credentialsSecret }}
- {name: HANSA_NATS_CREDS_FILE, value: /etc/hansa/nats/{{ .Values.nats.credentialsKey }}}
{{- end }}
{{- if .Values.nats.tlsSecret }}
- {name: HANSA_NATS_CA_FILE, value: /etc/hansa/nats-tls/ca.crt}
- {name: HANSA_NATS_CERT_FILE, value: /etc/hansa/nats-tls/tls.crt}
- {name: HANSA_NATS_KEY_FILE, value: /etc/hansa/nats-tls/tls.key}
{{- end }}
{{- end }}

{{- define "hansa.databaseMounts" -}}
- {name: keys, mountPath: /etc/hansa/keys, readOnly: true}
{{- if .Values.database.tlsSecret }}
- {name: database-tls, mountPath: /etc/hansa/database, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "hansa.engineMounts" -}}
{{ include "hansa.databaseMounts" . }}
- {name: data, mountPath: /var/lib/hansa}
{{- if .Values.nats.credentialsSecret }}
- {name: nats, mountPath: /etc/hansa/nats, readOnly: true}
{{- end }}
{{- if .Values.nats.tlsSecret }}
- {name: nats-tls, mountPath: /etc/hansa/nats-tls, readOnly: true}
{{- end }}
{{- if .Values.artifacts.claim }}
- {name: artifacts, mountPath: /var/lib/hansa-artifacts}
{{- end }}
{{- end }}

{{- define "hansa.databaseVolumes" -}}
- name: keys
  secret: {secretName: {{ .Values.keys.secret }}, defaultMode: 0440}
{{- with .Values.database.tlsSecret }}
- name: database-tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- end }}

{{- define "hansa.engineVolumes" -}}
{{ include "hansa.databaseVolumes" . }}
{{- with .Values.nats.credentialsSecret }}
- name: nats
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.nats.tlsSecret }}
- name: nats-tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.artifacts.claim }}
- name: artifacts
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- end }}

{{- define "hansa.serveUrl" -}}
{{ if .Values.serve.tlsSecret }}https{{ else }}http{{ end }}://{{ include "hansa.name" . }}-serve.{{ .Release.Namespace }}.svc:{{ .Values.serve.service.port }}
{{- end }}

{{/* A client of the control plane: its key, and whose certificates it believes. List of the release and the values of the component. */}}
{{- define "hansa.clientMounts" -}}
- {name: key, mountPath: /etc/hansa/key, readOnly: true}
{{- if (index . 0).Values.serve.tlsSecret }}
- {name: serve-ca, mountPath: /etc/hansa/serve-ca, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "hansa.clientVolumes" -}}
- name: key
  secret: {secretName: {{ (index . 1).secret }}, defaultMode: 0440, items: [{key: {{ (index . 1).key }}, path: api-key}]}
{{- with (index . 0).Values.serve.tlsSecret }}
- name: serve-ca
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- end }}

{{/* Whether a worker's event loop has turned within the last minute. No shell, and no module but Python's own. */}}
{{- define "hansa.alive" -}}
[python3, -ISc, "import os, sys, time; sys.exit(time.time() - os.stat('/var/lib/hansa/run/worker.alive').st_mtime > 60)"]
{{- end }}

{{/* Runs that workers of these pools are at or could be at; more than the largest number of pods can use need not be counted. */}}
{{- define "hansa.backlog" -}}
{{- $pools := printf "unnest('{%s}'::text[]) AS p" (join "," .pools) -}}
WITH pools AS (SELECT
{{- if .tenant }} t.tenant_id || '/' || p AS pool FROM hansa.tenants t, {{ $pools }} WHERE t.name = '{{ .tenant }}'{{ else }} p AS pool FROM {{ $pools }}{{ end -}}
) SELECT (SELECT count(*) FROM (SELECT FROM hansa.runs r WHERE r.state = 'queued' AND r.gate IS NULL AND r.pool IN (SELECT pool FROM pools) LIMIT {{ mul .keda.maxReplicas .concurrency }}) q)
{{- " " }}+ (SELECT count(*) FROM hansa.runs r WHERE r.state = 'running' AND r.pool IN (SELECT pool FROM pools))
{{- end }}

{{/* A budget of disruption: what has to be there, or else what may be away. */}}
{{- define "hansa.budget" -}}
{{ if hasKey . "minAvailable" }}minAvailable: {{ .minAvailable }}{{ else }}maxUnavailable: {{ .maxUnavailable }}{{ end }}
{{- end }}
