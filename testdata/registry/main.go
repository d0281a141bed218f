// Command registry serves container images to the tests: without users, or
// with those of a file to whom repositories belong (server.Users), plain HTTP
// or HTTPS under a CA of its own, on loopback or on an address of the test's
// own network. Repositories below faults/ fail as server.Faults says: pulls of
// HOST/faults/layer.cut.x2/REPO:TAG break off twice. It runs as whoever starts
// it, writes only below --dir and the files that are named, and ends on SIGTERM
// or SIGINT. What was pushed is there again after a restart.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/berth-hpc/berth/testdata/registry/server"
)

type flags struct {
	Listen    string  `default:"127.0.0.1:0" help:"Address to listen on; port 0 takes a free one." placeholder:"HOST:PORT"`
	Dir       string  `required:"" help:"Folder for blobs and manifests; made when missing." type:"path"`
	Log       string  `help:"Access log, appended to: method, path, status and bytes of each answer." type:"path"`
	ReadyFile string  `help:"Written with HOST:PORT once requests are answered." type:"path"`
	UsersFile string  `help:"Lines NAME:PASSWORD: let nobody in but these, by bearer tokens." type:"path"`
	Bandwidth float64 `help:"What all answers share, in bytes per second; 0 is no limit." placeholder:"N"`
	CAFile    string  `name:"ca-file" help:"Speak HTTPS; the certificate of the CA behind it, made at the start, is written here." type:"path"`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("registry"), kong.Description("A container registry for tests."))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := serve(ctx, f); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, f flags) error {
	out, err := openLog(f.Log)
	if err != nil {
		return err
	}
	defer out.Close()
	users, err := readUsers(f.UsersFile)
	if err != nil {
		return err
	}
	reg, err := server.New(server.Options{Dir: f.Dir, Log: out, Wrap: func(h http.Handler) http.Handler { return users.Wrap(server.Faults(h)) }})
	if err != nil {
		return err
	}
	defer reg.Close()
	l, err := net.Listen("tcp", f.Listen)
	if err != nil {
		return err
	}
	if l, err = secure(limit(l, f.Bandwidth), f.CAFile); err != nil {
		return err
	}
	if err := announce(f.ReadyFile, l.Addr().String()); err != nil {
		return errors.Join(err, l.Close())
	}
	return serveUntil(ctx, l, reg)
}

// readUsers returns the users in the file at path; "" is for everybody.
func readUsers(path string) (*server.Users, error) {
	users := &server.Users{Tokens: true, Passwords: map[string]string{}}
	if path == "" {
		return users, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if name, password, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			users.Passwords[name] = password
		}
	}
	users.Lock()
	return users, nil
}

// serveUntil answers on l until ctx ends, then gives running requests two
// seconds.
func serveUntil(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		return srv.Close()
	}
	return nil
}

// announce writes the address by rename, so that who waits for the file
// never reads half of it.
func announce(path, addr string) error {
	if path == "" {
		fmt.Println(addr)
		return nil
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(addr+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func openLog(path string) (io.WriteCloser, error) {
	if path == "" {
		path = os.DevNull
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
}
