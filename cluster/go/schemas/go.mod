// Whose schemas and names the tests hold ours against; nothing of them is built.
module stepaudio.io/cluster/schemas

go 1.26.0

require (
	github.com/kedacore/keda/v2 v2.21.0
	sigs.k8s.io/kueue v0.17.0
)
