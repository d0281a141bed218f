package imagecache

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/berth-hpc/berth/fault"
)

// A Format is what an image can be saved as.
type Format string

// The formats of Save.
const (
	FormatLayout        Format = "oci"            // a folder, OCI image layout
	FormatOCIArchive    Format = "oci-archive"    // a tar file of such a folder
	FormatDockerArchive Format = "docker-archive" // as docker save writes it
	FormatSquashfs      Format = "squashfs"       // the tree alone
)

// A Destination is a file or folder to save an image to. ParseDestination
// makes it.
type Destination struct {
	Format Format
	Path   string
	Tag    string // "" for none
}

// ParseDestination reads oci:FOLDER[:TAG], oci-archive:FILE[:TAG],
// docker-archive:FILE[:TAG], or FILE.sqsh. As in references, the path ends at
// the first colon.
func ParseDestination(s string) (Destination, error) {
	d, err := parseDestination(s)
	return d, fault.Wrap("read destination", quote(s), fault.User,
		"write FILE.sqsh, oci:FOLDER[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG]", err)
}

func parseDestination(s string) (Destination, error) {
	for _, format := range []Format{FormatLayout, FormatOCIArchive, FormatDockerArchive} {
		rest, ok := strings.CutPrefix(s, string(format)+":")
		if !ok {
			continue
		}
		file, tag, tagged := strings.Cut(rest, ":")
		if file == "" || tagged && tag == "" {
			return Destination{}, errors.New("a path or a tag is missing")
		}
		return Destination{format, path.Clean(file), tag}, nil
	}
	if strings.HasPrefix(s, "docker://") {
		return Destination{}, &fault.Error{
			Op: "read destination", Arg: quote(s), Blame: fault.User, Err: errors.New("this is a registry's"),
			Remedy: "write images to registries by berth push",
		}
	}
	switch path.Ext(s) {
	case ".sqsh", ".sqfs", ".squashfs":
		return Destination{Format: FormatSquashfs, Path: path.Clean(s)}, nil
	}
	return Destination{}, errors.New("it says no format")
}

// String is the destination as ParseDestination reads it.
func (d Destination) String() string {
	switch {
	case d.Format == FormatSquashfs:
		return d.Path
	case d.Tag == "":
		return fmt.Sprintf("%s:%s", d.Format, d.Path)
	}
	return fmt.Sprintf("%s:%s:%s", d.Format, d.Path, d.Tag)
}
