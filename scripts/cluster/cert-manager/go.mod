// The kinds of cert-manager, which the manifests have objects of; nothing of it runs on the test cluster.
module workspace-session-manager/scripts/cluster/cert-manager

go 1.26.0

require github.com/cert-manager/cert-manager v1.21.2
