package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Attached are the files that travel with a request; nil ones are left out.
type Attached struct {
	Config    *os.File // the image's config as the store keeps it
	Catalogue *os.File // the machine's devices (devices.Catalogue)
}

// Close closes them.
func (a *Attached) Close() {
	for _, f := range []*os.File{a.Config, a.Catalogue} {
		if f != nil {
			f.Close()
		}
	}
}

// A parcel is a request with the names of its descriptors.
type parcel struct {
	Request *Request `json:"request"`
	Files   []string `json:"files,omitempty"`
}

// SendRequest sends the one request of a channel. Who sends the files does not
// read them.
func SendRequest(channel *os.File, req *Request, a Attached) error {
	p, files := parcel{Request: req}, []*os.File(nil)
	for name, f := range map[string]*os.File{"config": a.Config, "catalogue": a.Catalogue} {
		if f != nil {
			p.Files, files = append(p.Files, name), append(files, f)
		}
	}
	return sendJSON(channel, &p, files...)
}

// ReceiveRequest receives it. The caller closes the files.
func ReceiveRequest(channel *os.File) (*Request, *Attached, error) {
	p, err := ReceivePacket(channel, maxPacket)
	if err != nil {
		return nil, nil, fmt.Errorf("receive request: %w", err)
	}
	got := new(parcel)
	if err := json.Unmarshal(p.Data, got); err != nil || got.Request == nil || len(p.Files) != len(got.Files) {
		closeAll(p.Files)
		return nil, nil, fmt.Errorf("receive request with %d descriptors: %w", len(p.Files), err)
	}
	a := new(Attached)
	for i, name := range got.Files {
		if !a.take(name, p.Files[i]) {
			closeAll(p.Files)
			return nil, nil, fmt.Errorf("receive request: a descriptor called %q, or two of them", name)
		}
	}
	return got.Request, a, nil
}

// take says whether a file of this name is wanted, and not there yet.
func (a *Attached) take(name string, f *os.File) bool {
	switch {
	case name == "config" && a.Config == nil:
		a.Config = f
	case name == "catalogue" && a.Catalogue == nil:
		a.Catalogue = f
	default:
		return false
	}
	return true
}

// SendReply sends one reply with its descriptors.
func SendReply(channel *os.File, r *Reply, files ...*os.File) error {
	return sendJSON(channel, r, files...)
}

// receiveReply receives one reply. A closed channel means that the process on
// the other side ended without a word.
func receiveReply(channel *os.File) (*Reply, []*os.File, error) {
	p, err := ReceivePacket(channel, maxPacket)
	if errors.Is(err, io.EOF) {
		return nil, nil, errors.New("the process that builds the container ended early")
	}
	if err != nil {
		return nil, nil, err
	}
	r := new(Reply)
	if err := json.Unmarshal(p.Data, r); err != nil {
		closeAll(p.Files)
		return nil, nil, fmt.Errorf("receive reply: %w", err)
	}
	return r, p.Files, nil
}

func sendJSON(channel *os.File, v any, files ...*os.File) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	return SendPacket(channel, data, files...)
}
