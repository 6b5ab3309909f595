{{/* The names, labels and pod settings that several manifests share. */}}

{{- define "curfew.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "curfew.instance" -}}
app.kubernetes.io/name: curfew
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "curfew.labels" -}}
{{ include "curfew.instance" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "curfew.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "curfew.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "curfew.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "curfew.claim" -}}
{{ .Values.persistence.existingClaim | default (include "curfew.name" .) }}
{{- end -}}

{{- define "curfew.documents" -}}
{{ .Values.documents.existingConfigMap | default (printf "%s-documents" (include "curfew.name" .)) }}
{{- end -}}

{{/* 10001 is the user of the Dockerfile. */}}
{{- define "curfew.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "curfew.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The variables that come out of Secrets: (dict "secrets" .Values.secrets "named" (dict "CURFEW_…" "which" …)). */}}
{{- define "curfew.secretVariables" -}}
{{- range $variable, $which := .named -}}
{{- $from := get $.secrets $which -}}
{{- if $from.name }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $from.name | quote }}, key: {{ $from.key | quote }}}}
{{- end -}}
{{- end -}}
{{- end -}}
