package simulate

import (
	"math"
	"time"
)

// Traffic is what a server had to answer.
type Traffic struct {
	Requests int   `json:"requests"`
	Refused  int   `json:"refused"` // of them, with status 429
	Bytes    int64 `json:"bytes"`   // of layers
}

// A server is a Server in time.
type server struct {
	Server
	e       *engine
	tries   int
	wait    time.Duration
	link    *resource
	traffic Traffic
	tokens  float64 // requests that it would answer at once
	counted float64 // when that was
}

func newServer(e *engine, s Server, site Site) *server {
	return &server{Server: s, e: e, tries: site.Tries, wait: site.Wait, link: newResource(s.Bandwidth), tokens: math.Max(s.Burst, 1)}
}

// admits counts a request and says whether it is answered.
func (s *server) admits() bool {
	s.traffic.Requests++
	if s.Rate <= 0 {
		return true
	}
	s.tokens = math.Min(math.Max(s.Burst, 1), s.tokens+(s.e.now-s.counted)*s.Rate)
	s.counted = s.e.now
	if s.tokens < 1 {
		s.traffic.Refused++
		return false
	}
	s.tokens--
	return true
}

// ask makes a request, over a new connection or an old one, and again after a
// pause when it is refused. done hears whether it was answered in the end.
func (s *server) ask(first bool, done func(ok bool)) {
	trips := 1.0
	if first {
		trips = 3 // TCP, TLS
	}
	s.e.after(trips*s.RoundTrip.Seconds(), func() { s.answer(0, done) })
}

func (s *server) answer(failures int, done func(bool)) {
	switch {
	case s.admits():
		done(true)
	case failures >= s.tries || s.RetryAfter > maxRetryAfter:
		done(false)
	default:
		s.e.after(s.pause(failures)+s.RoundTrip.Seconds(), func() { s.answer(failures+1, done) })
	}
}

// maxRetryAfter is how long Berth lets itself be sent away.
const maxRetryAfter = 2 * time.Minute

// pause is that of package imagecache (retry.go) after failure n.
func (s *server) pause(n int) float64 {
	own := maxPause
	if n < 20 && s.wait<<n < maxPause {
		own = s.wait << n
	}
	asked := s.RetryAfter.Seconds() * (1 + s.e.random.Float64()/2)
	return math.Max(s.e.between(own), asked)
}

// enter makes the requests up to the layers: the manifest by its digest and the
// config; where tokens are wanted, first the refused one, the one for where
// tokens are given, and the one for the token.
func (s *server) enter(done func(ok bool)) {
	manifest := func(first bool) {
		s.ask(first, func(ok bool) {
			if !ok {
				done(false)
				return
			}
			s.ask(false, done) // the config
		})
	}
	if !s.Tokens {
		manifest(true)
		return
	}
	s.traffic.Requests += 3
	s.e.after((3+1+3)*s.RoundTrip.Seconds(), func() { manifest(false) })
}
