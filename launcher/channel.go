package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// SendRequest sends the one request of a channel.
func SendRequest(channel *os.File, req *Request) error {
	return sendJSON(channel, req)
}

// ReceiveRequest receives it.
func ReceiveRequest(channel *os.File) (*Request, error) {
	p, err := ReceivePacket(channel, maxPacket)
	if err != nil {
		return nil, fmt.Errorf("receive request: %w", err)
	}
	closeAll(p.Files)
	req := new(Request)
	if err := json.Unmarshal(p.Data, req); err != nil {
		return nil, fmt.Errorf("receive request: %w", err)
	}
	return req, nil
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
