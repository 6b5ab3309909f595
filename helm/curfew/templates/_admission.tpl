{{/* Names and conditions of admission, and what no schema can say of its values. */}}

{{- define "curfew.admission" -}}
{{- printf "%s-admission" (include "curfew.name" . | trunc 52 | trimSuffix "-") -}}
{{- end -}}

{{- define "curfew.admissionSecret" -}}
{{ .Values.admission.certificate.secret | default (printf "%s-tls" (include "curfew.admission" .)) }}
{{- end -}}

{{- define "curfew.admissionHost" -}}
{{ include "curfew.admission" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Only pods that ask for accelerators are asked about, and none of the cluster's own. The process looks closer. */}}
{{- define "curfew.admissionConditions" -}}
- name: asks-for-accelerators
  expression: >-
    object.spec.containers.exists(c, has(c.resources) && has(c.resources.limits) &&
    c.resources.limits.exists(name, name.matches({{ include "curfew.accelerators" . }})))
    || (has(object.spec.initContainers) && object.spec.initContainers.exists(c, has(c.resources) &&
    has(c.resources.limits) && c.resources.limits.exists(name, name.matches({{ include "curfew.accelerators" . }}))))
- name: not-of-the-cluster-itself
  expression: >-
    !request.namespace.startsWith('kube-') && !(has(object.metadata.ownerReferences) &&
    object.metadata.ownerReferences.exists(owner, owner.kind == 'DaemonSet' || owner.kind == 'Node'))
{{- end -}}

{{- define "curfew.accelerators" -}}
'^(nvidia[.]com/|amd[.]com/|habana[.]ai/|aws[.]amazon[.]com/neuron|google[.]com/tpu|gpu[.]intel[.]com/|qualcomm[.]com/)'
{{- end -}}

{{- define "curfew.admissionRefusals" -}}
{{- with .Values.admission -}}
{{- if not .token.name -}}
{{- fail "admission.token.name: admission asks Curfew for what it judges on, so name the Secret with a viewer's token (`curfew token create admission --role viewer`)" -}}
{{- end -}}
{{- if and .certificate.secret .certificate.certManager.enabled -}}
{{- fail "admission.certificate: secret and certManager exclude each other; leave one of them out" -}}
{{- end -}}
{{- if and .certificate.secret (not .certificate.caBundle) -}}
{{- fail "admission.certificate.caBundle: API servers must know who signed the certificate in certificate.secret; give its authority, PEM in base64" -}}
{{- end -}}
{{- if and .certificate.caBundle (not .certificate.secret) -}}
{{- fail "admission.certificate.secret: caBundle is of a certificate of yours, so name the Secret (kubernetes.io/tls) that holds it" -}}
{{- end -}}
{{- end -}}
{{- end -}}
