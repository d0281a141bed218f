package imagecache

// A Phase is what a pull is doing.
type Phase string

// The phases of a pull in their order. Layers are unpacked while later ones
// are still on their way.
const (
	PhaseResolve Phase = "resolve" // asking for the digest
	PhaseWait    Phase = "wait"    // another process pulls the same image
	PhasePull    Phase = "pull"    // layers on their way
	PhaseUnpack  Phase = "unpack"  // layers being unpacked
	PhaseSquash  Phase = "squash"  // squashfs being written
	PhasePublish Phase = "publish" // synced and named
)

// Progress is the state of one step of a pull.
type Progress struct {
	Phase Phase `json:"phase"`
	// Layer counts from 1 and is 0 where the phase is not about one layer;
	// Layers is how many the image has.
	Layer  int `json:"layer,omitempty"`
	Layers int `json:"layers,omitempty"`
	// Done and Total are bytes (compressed, for PhasePull); Total is 0
	// where it is unknown.
	Done  int64 `json:"done"`
	Total int64 `json:"total,omitempty"`
}

// A ProgressFunc is told of progress. It is called from several goroutines,
// though never from two at once, at most some ten times a second per layer,
// and always once when a layer is done. It must not block.
type ProgressFunc func(Progress)
