package soak

import (
	"encoding/base64"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/deploy"
	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
)

var (
	length = flag.Duration("soak", 0, "how long TestSoak begins new rounds; 0 skips it")
	seed   = flag.Uint64("seed", 1, "which plan TestSoak follows; the same seed is the same plan")
	keep   = flag.Bool("keep", false, "go on after a round that failed")
	first  = flag.Int("round", 0, "the round of the plan with which it begins")
)

const storeDir = "/var/lib/berth"

// passwords of the closed registry.
var passwords = map[string]string{"alice": "al1ce-s3cret", "bob": "b0b-s3cret"}

// A soak is a site and what the test knows of it.
type soak struct {
	*cluster.Cluster
	t       *testing.T
	sky     *weather
	users   *server.Users
	digests map[string]string      // of Images, in hex
	at      map[string]*sync.Mutex // held by whoever needs a node to be on, or off
	before  map[string]state       // of each node without jobs
	homes   string
	tally   map[string]int
}

// settings are of the site: everything gives up soon, since nothing of it is
// farther than this machine.
const settings = `
[container]
mounts = ["/shared"]
[resolve]
ttl = "3s"
[network]
header_timeout = "4s"
stall_timeout = "3s"
retries = 1
[registry."` + open + `"]
insecure = true
[registry."` + closed + `"]
insecure = true
`

// boot is what a node does before slurmd: it mounts its store, a small disk of
// its own, and one of them behaves as if it had an older kernel.
const boot = `#!/bin/sh
mount -o loop /var/store.img ` + storeDir + `
mkdir -p /etc/berth/conf.d
case $(hostname) in
n1) printf '[container]\nidmap = false\n' ;;
n2) printf '[container]\nchanges = "scratch"\nscratch = "/tmp"\n' ;;
esac >/etc/berth/conf.d/node.toml
`

func newSoak(t *testing.T) *soak {
	t.Helper()
	c := deploy.Up(t, deploy.Options{
		Cluster: cluster.Options{Conf: []string{"KillWait=5", "PrologFlags=Alloc", "AuthInfo=cred_expire=15"}},
		Config:  settings,
	})
	s := &soak{Cluster: c, t: t, digests: map[string]string{}, at: map[string]*sync.Mutex{}, before: map[string]state{}, tally: map[string]int{}}
	s.startRegistries()
	for _, node := range Nodes {
		s.at[node] = &sync.Mutex{}
		s.root(node, "truncate -s 96M /var/store.img && mkfs.ext4 -q -m 0 /var/store.img && cat >/var/rc.local <<'END'\n"+boot+"END\nchmod 755 /var/rc.local && /var/rc.local")
	}
	for user, password := range passwords {
		auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		s.MustRun(t.Context(), "ctl", user, "sh", "-c", fmt.Sprintf(
			`mkdir -m 700 ~/.docker && umask 077 && echo '{"auths": {"%s": {"auth": "%s"}}}' >~/.docker/config.json; echo mine >~/note`, closed, auth))
	}
	// Each user's settings, answers and run folders are there from here on.
	for _, user := range Users {
		s.MustRun(t.Context(), "ctl", user, "srun", "-N3", "--container-image="+Images["red"].Reference(), "true")
	}
	s.WaitIdle()
	s.remember()
	return s
}

// startRegistries serves the images from the test's own process, so that it
// can change their weather.
func (s *soak) startRegistries() {
	s.t.Helper()
	s.users = &server.Users{Passwords: passwords, Tokens: true}
	base, err := images.ReadLayout(images.Layout(s.t, "tiny"), images.Tag)
	if err != nil {
		s.t.Fatal(err)
	}
	s.sky = &weather{}
	openOne := server.Start(s.t, server.Options{Wrap: s.sky.over})
	closedOne := server.Start(s.t, server.Options{Wrap: func(h http.Handler) http.Handler { return s.users.Wrap(s.sky.over(h)) }})
	for name, image := range Images {
		img, err := image.Build(base)
		if err != nil {
			s.t.Fatal(err)
		}
		host := openOne.Host
		if image.Owner != "" {
			host = closedOne.Host
		}
		digest, err := images.Push(s.t.Context(), host, image.Repository+":1", img)
		if err != nil {
			s.t.Fatal(err)
		}
		s.digests[name] = strings.TrimPrefix(digest, "sha256:")
	}
	s.users.Lock()
	for address, registry := range map[string]http.Handler{open: openOne, closed: closedOne} {
		srv := &http.Server{Handler: registry, ReadHeaderTimeout: 10 * time.Second}
		listener := s.Listen("ctl", address)
		go func() { _ = srv.Serve(listener) }()
		s.t.Cleanup(func() { _ = srv.Close() })
	}
}

// root runs a shell script as root on a machine and returns its output.
func (s *soak) root(machine, script string) string {
	s.t.Helper()
	return s.Run(s.t.Context(), machine, "root", "bash", "-c", script).Stdout
}

// slurm is scontrol, for when slurmctld is there.
func (s *soak) slurm(args ...string) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; s.wait(200 * time.Millisecond) {
		r := s.Run(s.t.Context(), "ctl", "root", append([]string{"scontrol"}, args...)...)
		if r.Code == 0 {
			return
		}
		if time.Now().After(end) {
			s.t.Errorf("scontrol %q: %v", args, r)
			return
		}
	}
}

// TestSoak follows a plan for a while. Each job is judged by what it printed,
// what Slurm says of it, and the faults that it met; each round ends with a
// look at all nodes.
func TestSoak(t *testing.T) {
	if *length == 0 {
		t.Skip("runs with -soak 2m or longer: make soak")
	}
	s := newSoak(t)
	s.see()
	begin := time.Now()
	for number := *first; number == *first || time.Since(begin) < *length; number++ {
		plan := Plan(*seed, number)
		t.Logf("seed %d, round %d\n%s", *seed, number, plan)
		s.round(plan)
		if t.Failed() && !*keep {
			t.Fatalf("replay: go test ./testdata/soak -seed %d -round %d -soak 1s", *seed, number)
		}
	}
	t.Log(s.tally)
	if s.tally["ran"] == 0 {
		t.Error("no job ran: the test shows nothing")
	}
}

// round does a round, mends all, and looks.
func (s *soak) round(plan Round) {
	begin := time.Now()
	outcomes := make([]Outcome, len(plan.Jobs))
	var mu sync.Mutex
	var happened []Happened
	var wait sync.WaitGroup
	for i, j := range plan.Jobs {
		wait.Go(func() {
			s.wait(time.Until(begin.Add(j.After)))
			outcomes[i] = s.submit(j)
		})
	}
	for _, f := range plan.Faults {
		wait.Go(func() {
			s.wait(time.Until(begin.Add(f.After)))
			h, hit := s.strike(f)
			if !hit {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			happened = append(happened, h)
		})
	}
	wait.Wait()
	s.settle(plan.Jobs, outcomes, happened)
	for i := range happened {
		if happened[i].kind().OfImage {
			happened[i].To = time.Now() // it is mended below
		}
		s.tally["struck: "+happened[i].Kind]++
	}
	for i, j := range plan.Jobs {
		how, err := Judge(j, outcomes[i], happened)
		if err != nil {
			s.t.Errorf("wrong: %v\n%s\n%v\nfaults:\n%s", err, j, outcomes[i], list(happened))
			continue
		}
		s.tally[how]++
		if how != "ran" {
			s.t.Logf("job %s: %s: %s", j.Name, how, outcomes[i].Output)
		}
	}
	s.look(happened)
}
