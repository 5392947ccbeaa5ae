// The kinds of the Prometheus Operator, which the manifests have objects of; nothing of it runs on the test cluster.
module workspace-session-manager/scripts/cluster/prometheus-operator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
