{{/* Name of everything that this release makes. */}}
{{- define "step-audio.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-operator
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}-operator
{{- end -}}
{{- end -}}

{{- define "step-audio.selector" -}}
app.kubernetes.io/name: step-audio-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "step-audio.labels" -}}
{{ include "step-audio.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "step-audio.image" -}}
{{- with .Values.image.registry }}{{ . }}/{{ end -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
