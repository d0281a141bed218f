// Command pbs is a stand-in for OpenPBS, which is no Debian package: a server,
// a pbs_mom for each node, and the commands that users and admins have. What
// was measured on a real server with two nodes is what it does to jobs and
// hooks: the order of events, as whom and with which environment hooks run,
// what they may see and change, how their arguments get lost, how a job's shell
// is started, and what its environment is. It schedules nothing: a job runs at
// once, on the first nodes.
//
// The program does what the name says by which it is called:
//
//	pbs_server   the server, on the submit host                  (root)
//	pbs_mom      on each node                                    (root)
//	qsub         submits a job and waits for its end             (users)
//	pbsnodes     lists the nodes
//	qmgr         hooks and resources                             (root)
//	pbs_tmrsh    starts a task of a job on one of its nodes      (jobs)
//	pbsdsh       … on each of them                               (jobs)
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// Where everything is. The server's folder is one that all machines share, as
// PBS copies hooks to nodes.
const (
	home       = "/var/spool/pbs"
	serverHome = "/shared/pbs"
	momPort    = ":15002"
	serverPath = "/run/pbs_server.sock"
	execDir    = "/opt/pbs"
)

func main() {
	programs := map[string]func(args []string) (int, error){
		"pbs_server": serve, "pbs_mom": serveNode, "qsub": qsub, "qmgr": qmgr, "pbs_tmrsh": tmrsh, "pbsdsh": dsh, "pbsnodes": nodes,
	}
	program, ok := programs[filepath.Base(os.Args[0])]
	if !ok {
		program = func([]string) (int, error) { return 2, fmt.Errorf("called by another name than its own") }
	}
	code, err := program(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
	}
	os.Exit(code)
}

// A job is what qsub submits and the server completes.
type job struct {
	ID          string
	User        string
	UID, GID    int
	Groups      []int
	Home, Shell string
	Script      string   // text; "" for an executable or an interactive job
	Argv        []string // qsub -- argv
	Interactive bool
	Arguments   string // of qsub, as one line of text
	Resources   map[string]string
	Variables   map[string]string
	Hosts       []string
	From, To    int // of an array; To is 0 for none
}

// A message is all that the programs say to each other, as lines of JSON.
type message struct {
	Op      string   `json:",omitempty"` // event, job, task, tm; in answers out, end
	Event   string   `json:",omitempty"`
	Job     *job     `json:",omitempty"`
	JobID   string   `json:",omitempty"`
	Host    string   `json:",omitempty"`
	Argv    []string `json:",omitempty"`
	Data    []byte   `json:",omitempty"`
	Code    int      `json:",omitempty"`
	Error   string   `json:",omitempty"`
	Hosts   []string `json:",omitempty"`
	Seconds float64  `json:",omitempty"`
}

// A talk is one connection.
type talk struct {
	net.Conn
	in  *json.Decoder
	out *json.Encoder
	mu  sync.Mutex // of out
}

func newTalk(c net.Conn) *talk {
	return &talk{Conn: c, in: json.NewDecoder(c), out: json.NewEncoder(c)}
}

// send may be called by several at once.
func (t *talk) send(m message) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.Encode(m)
}

func dial(network, address string) (*talk, error) {
	c, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return newTalk(c), nil
}

// ask sends one message and takes answers until the last. Output goes to out.
func (t *talk) ask(m message, out func([]byte)) (message, error) {
	if err := t.send(m); err != nil {
		return m, err
	}
	return t.answers(out)
}

func (t *talk) answers(out func([]byte)) (message, error) {
	for {
		var answer message
		if err := t.in.Decode(&answer); err != nil {
			return answer, err
		}
		if answer.Op != "out" {
			return answer, nil
		}
		out(answer.Data)
	}
}

// listen serves connections until the process is killed.
func listen(network, address string, serve func(t *talk)) (int, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return 1, err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return 1, err
		}
		go func() {
			defer c.Close()
			serve(newTalk(c))
		}()
	}
}
