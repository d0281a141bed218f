package step

import (
	"os"
	"path/filepath"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

// A saved is what a process of the user's saves the step's container from
// (--container-save), beside the container itself: descriptors of what that user
// may read, none of which is read here.
type saved struct {
	reference, digest string   // of the image below the changes
	changes           *os.File // a folder as package changes has it; nil where nothing could be changed
	// base and config are the image's file and config; nil for one of the user's
	// own, which their process opens.
	base, config *os.File
}

// newSaved is nil where the request does not ask for it.
func newSaved(r *Request, v *view, c *launcher.Container, image Image) (*saved, error) {
	if r.Save == "" {
		return nil, nil
	}
	s := &saved{reference: r.Image, digest: r.Digest, changes: c.Changes}
	if image == nil {
		if !filepath.IsAbs(s.reference) {
			s.reference = filepath.Join(v.job.Dir, s.reference)
		}
		return s, nil
	}
	s.digest = image.Digest()
	var err error
	if s.base, err = image.Squashfs(); err == nil {
		s.config, err = image.Config()
	}
	return s, fault.Wrap("open the image to save", fault.Clean(r.Image), fault.Site, "", err)
}

// add adds it to an answer.
func (s *saved) add(m wire.Message, files []*os.File) (wire.Message, []*os.File) {
	m = m.Add("save_image", s.reference).Add("save_digest", s.digest)
	for _, f := range []struct {
		name string
		file *os.File
	}{{"changes", s.changes}, {"base", s.base}, {"config", s.config}} {
		if f.file != nil {
			m, files = m.Add("saved", f.name), append(files, f.file)
		}
	}
	return m, files
}
