package launcher

import (
	"encoding/json"
	"fmt"
)

// MarkerPath is where every container has its Marker: a read-only file below
// which nothing of the image can lie, on a tmpfs of the container's own.
const MarkerPath = "/.berth"

// maxMarker bounds a marker in bytes: a result, in base64, and what the user gave.
const maxMarker = 2 * MaxResult

// A Label is what a container is called, for those who look for it while it
// runs. All of it is the user's, or the scheduler's word to the user.
type Label struct {
	Job   string `json:"job,omitempty"`   // the scheduler's number of the job
	Step  string `json:"step,omitempty"`  // of the job: a number, or batch, interactive
	Name  string `json:"name,omitempty"`  // of a container that is kept
	Image string `json:"image,omitempty"` // as the user named it
	// Env are the variables of the job that count more than the image's:
	// NAME keeps its value, NAME=VALUE has another one.
	Env []string `json:"env,omitempty"`
}

// A Marker says of a running container what a further task of it has to know.
// Whoever reads it is the user that the container belongs to, and believes it
// no more than any other file of theirs.
type Marker struct {
	Label
	// Remap says that its tasks appear as root.
	Remap bool `json:"remap,omitempty"`
	// Unshare are the kinds of namespaces that it has of its own.
	Unshare []string `json:"unshare,omitempty"`
	// Mount is the inode of the container's mount namespace: not of one that a
	// program inside made from it.
	Mount uint64 `json:"mount"`
	// Result is what tasks apply, in package wire's format (Container.Result).
	Result []byte `json:"result"`
}

// Encode returns the marker's file.
func (m *Marker) Encode() ([]byte, error) {
	data, err := json.Marshal(m)
	if err == nil && len(data) > maxMarker {
		err = fmt.Errorf("%d bytes are more than %d", len(data), maxMarker)
	}
	return data, err
}

func decodeMarker(data []byte) (*Marker, error) {
	m := new(Marker)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("read marker: %w", err)
	}
	return m, nil
}
