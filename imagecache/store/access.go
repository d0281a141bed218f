package store

import (
	"os"
	"path/filepath"
	"slices"
)

// An Origin is a repository from which a store pulled every blob of an image.
type Origin struct {
	Registry   string `json:"registry"` // host, as in a reference
	Repository string `json:"repository"`
	// Public says that nobody's login was needed for it.
	Public bool `json:"public"`
}

// Access says who may use an image of a store that serves several users. The
// zero Access lets nobody in.
type Access struct {
	// Public lets everybody in. On disk it is the folder's mode: what users
	// can read, they may use.
	Public bool `json:"public"`
	// Origins are the repositories whose readers may use it, where it is not.
	Origins []Origin `json:"origins,omitempty"`
}

// Has reports whether every blob came from that repository.
func (a Access) Has(registry, repository string) bool {
	return slices.ContainsFunc(a.Origins, func(o Origin) bool {
		return o.Registry == registry && o.Repository == repository
	})
}

func accessOf(folder os.FileInfo, r Record) Access {
	return Access{Public: folder.Mode()&0o005 == 0o005, Origins: r.Origins}
}

// Access reads who may use im. The error is ErrNotFound when it was removed.
func (im Image) Access() (Access, error) {
	folder, err := os.Lstat(im.dir)
	if err != nil {
		return Access{}, siteError("look at image", im.digest.String(), missing(err))
	}
	if public := accessOf(folder, Record{}); public.Public {
		return public, nil
	}
	r, err := im.Record()
	if err != nil {
		return Access{}, missing(err)
	}
	return accessOf(folder, r), nil
}

// Access says who may use the image, as its own store has it.
func (s *Source) Access() (Access, error) {
	folder, err := s.dir.Stat()
	if err != nil {
		return Access{}, err
	}
	return accessOf(folder, s.parsed), nil
}

// AddOrigin records that every blob of im is in o, too, or that o has become
// public, known by reference. A public origin opens the image to everybody;
// by which names and from where others had it is forgotten first. Only root
// calls it; two at once may lose one of the origins, which is then asked again.
func (im Image) AddOrigin(o Origin, reference string) error {
	r, err := im.Record()
	if err != nil {
		return missing(err)
	}
	if o.Public {
		r.Origins, r.References, r.Source = []Origin{o}, []string{reference}, o.Registry
	} else {
		r.addOrigin(o, reference)
	}
	if err := im.replaceRecord(r); err != nil || !o.Public {
		return err
	}
	err = os.Chmod(im.dir, folderMode())
	if err == nil {
		err = syncDir(im.dir)
	}
	return siteError("open image", im.digest.String(), missing(err))
}

func (r *Record) addOrigin(o Origin, reference string) {
	same := func(other Origin) bool { return other.Registry == o.Registry && other.Repository == o.Repository }
	if !slices.ContainsFunc(r.Origins, same) {
		r.Origins = append(r.Origins, o)
	}
	if !slices.Contains(r.References, reference) {
		r.References = append(r.References, reference)
	}
}

func (im Image) replaceRecord(r Record) error {
	newDir := filepath.Join(im.dir, "..", "..", newName)
	return siteError("update image record", im.digest.String(),
		replaceSwept(newDir, im.Key(), filepath.Join(im.dir, RecordName), 0o444, r))
}

// label writes the work's origin into the record in dir.
func (w Work) label(dir string, d Digest) error {
	if w.Origin == nil {
		return nil
	}
	var r Record
	path := filepath.Join(dir, RecordName)
	if err := readJSON(path, &r); err != nil {
		return bugError("publish image", d.String(), "read %s: %w", RecordName, err)
	}
	r.Origins = []Origin{*w.Origin}
	return siteError("publish image", d.String(), WriteJSON(path, 0o444, r))
}

// mode is what others may do with the folder of what is published.
func (w Work) mode() os.FileMode {
	if w.Private {
		return 0o700
	}
	return folderMode()
}
