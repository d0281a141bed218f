package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// SendRequest sends the one request of a channel, with the image's config as
// the store keeps it: a file, nil for none. Who sends it does not read it.
func SendRequest(channel *os.File, req *Request, config *os.File) error {
	if config == nil {
		return sendJSON(channel, req)
	}
	return sendJSON(channel, req, config)
}

// ReceiveRequest receives it. The caller closes the config, which may be nil.
func ReceiveRequest(channel *os.File) (*Request, *os.File, error) {
	p, err := ReceivePacket(channel, maxPacket)
	if err != nil {
		return nil, nil, fmt.Errorf("receive request: %w", err)
	}
	req := new(Request)
	if err := json.Unmarshal(p.Data, req); err != nil || len(p.Files) > 1 {
		closeAll(p.Files)
		return nil, nil, fmt.Errorf("receive request with %d descriptors: %w", len(p.Files), err)
	}
	if len(p.Files) == 0 {
		return req, nil, nil
	}
	return req, p.Files[0], nil
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
