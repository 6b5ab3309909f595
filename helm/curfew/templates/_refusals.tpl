{{/* What no schema can say: values that are fine alone and unsafe together. Each refusal says what to do. */}}

{{- define "curfew.refusals" -}}
{{- range $index, $channel := .Values.notify -}}
{{- $address := regexMatch "^[^@\\s,:/]+@[^@\\s,:/]+$" $channel -}}
{{- $secret := regexMatch "^[^\\s,]*\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}[^\\s,]*$" $channel -}}
{{- $open := regexMatch "^(webhooks?|jsons?)://[^\\s,@?]+$" $channel -}}
{{- if not (or $address $secret $open) -}}
{{- fail (printf "notify[%d]: write a mail address, or a channel with what is secret in it as ${NAME}, as in slack://${SLACK}; the Secret that secrets.named names has the key NAME" $index) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if hasPrefix "CURFEW_" .name -}}
{{- fail (printf "extraEnv: %s is a setting of Curfew's own; it has a value of its own in this chart, or a key in the Secret that secrets.named names" .name) -}}
{{- end -}}
{{- end -}}
{{- range $label, $_ := .Values.podLabels -}}
{{- if regexMatch "^(app\\.kubernetes\\.io|helm\\.sh)/" $label -}}
{{- fail (printf "podLabels: %s is a label of the chart's own, by which its pods are found" $label) -}}
{{- end -}}
{{- end -}}
{{- $postgres := eq .Values.database.kind "postgresql" -}}
{{- if and (not $postgres) (gt (int .Values.replicas) 1) -}}
{{- fail "replicas: SQLite is one file for one process, so there can be only 1 replica; for more set database.kind=postgresql and secrets.databaseUrl.name" -}}
{{- end -}}
{{- if and $postgres (not .Values.secrets.databaseUrl.name) -}}
{{- fail "secrets.databaseUrl.name: database.kind is postgresql, so name the Secret whose key holds postgresql://user:password@host/name" -}}
{{- end -}}
{{- if and (not $postgres) .Values.secrets.databaseUrl.name -}}
{{- fail "database.kind: secrets.databaseUrl names a Secret, but database.kind is sqlite and would not read it; set database.kind=postgresql" -}}
{{- end -}}
{{- if and $postgres (not .Values.secrets.signingKey.name) -}}
{{- fail "secrets.signingKey.name: with PostgreSQL no volume keeps a generated key, so links in messages would die with their pod; name a Secret with 32 characters or more, as `openssl rand -hex 32` makes" -}}
{{- end -}}
{{- if and (eq .Values.ceiling "enforce") (not .Values.publicUrl) -}}
{{- fail "publicUrl: ceiling is enforce, but people could not answer a warning; say where they reach Curfew, as in https://curfew.example.org" -}}
{{- end -}}
{{- if and (ne .Values.ceiling "observe") (not $postgres) (not .Values.persistence.enabled) -}}
{{- fail "persistence.enabled: without a volume Curfew forgets at each restart whom it warned, what it stopped and how to put it back; that is only for ceiling=observe" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.publicUrl) -}}
{{- fail "publicUrl: the Ingress takes its host from it; set it, as in https://curfew.example.org" -}}
{{- end -}}
{{- if and .Values.documents.files .Values.documents.existingConfigMap -}}
{{- fail "documents: files and existingConfigMap exclude each other; move the files into your ConfigMap, or leave existingConfigMap empty" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.anonymous) (not .Values.metrics.serviceMonitor.token.name) -}}
{{- fail "metrics.serviceMonitor.token.name: /metrics takes a token, so name the Secret with a viewer's token (`curfew token create`), or set metrics.anonymous=true" -}}
{{- end -}}
{{- if and .Values.kubernetes.enforce (not .Values.kubernetes.observe) -}}
{{- fail "kubernetes.enforce: what Curfew does not see it does not stop; set kubernetes.observe=true too" -}}
{{- end -}}
{{- if and .Values.kubernetes.terminate (not .Values.kubernetes.enforce) -}}
{{- fail "kubernetes.terminate: whoever may not suspend a workload should not delete it either; set kubernetes.enforce=true too" -}}
{{- end -}}
{{- if and .Values.kubernetes.observe (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.name: every pod of the namespace that says nothing else is the ServiceAccount default, and would get the rights of kubernetes too; name one that is Curfew's own" -}}
{{- end -}}
{{- end -}}
