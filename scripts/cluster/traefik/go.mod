// The kinds of Traefik; the program itself comes as a Python package.
module workspace-session-manager/scripts/cluster/traefik

go 1.26.0

require github.com/traefik/traefik/v3 v3.7.13
