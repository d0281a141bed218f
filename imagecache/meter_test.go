package imagecache

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	at := time.Unix(0, 0)
	m := &Meter{Now: func() time.Time { return at }}
	layer := func(phase Phase, i int, done, total int64) Progress {
		return Progress{Phase: phase, Layer: i, Layers: 3, Done: done, Total: total}
	}
	for i, step := range []struct {
		after  time.Duration
		p      Progress
		begins bool
		want   string
	}{
		{0, Progress{Phase: PhaseResolve}, true, ""},
		{0, layer(PhasePull, 1, 0, 100e6), true, "0 of 3 layers, 0.0 MB"},
		{0, layer(PhasePull, 2, 0, 200e6), false, "0 of 3 layers, 0.0 MB"},
		{0, layer(PhasePull, 3, 0, 50e6), false, "0 of 3 layers, 0 of 350 MB"},
		{500 * time.Millisecond, layer(PhasePull, 1, 10e6, 100e6), false, "0 of 3 layers, 10 of 350 MB"},
		{500 * time.Millisecond, layer(PhasePull, 1, 30e6, 100e6), false, "0 of 3 layers, 30 of 350 MB, 30 MB/s, 11 s left"},
		{time.Second, layer(PhasePull, 1, 100e6, 100e6), false, "1 of 3 layers, 100 of 350 MB, 50 MB/s, 5 s left"},
		{0, layer(PhaseUnpack, 1, 70e6, 0), false, "1 of 3 layers, 100 of 350 MB, 50 MB/s, 5 s left"},
		// Nothing comes for a while: the rate goes down, the rest grows.
		{8 * time.Second, layer(PhasePull, 2, 1e6, 200e6), false, "1 of 3 layers, 101 of 350 MB, 10 MB/s, 25 s left"},
		// The transfer begins again.
		{time.Second, layer(PhasePull, 1, 0, 100e6), false, "0 of 3 layers, 1.0 of 350 MB"},
		{2 * time.Second, layer(PhasePull, 1, 100e6, 100e6), false, "1 of 3 layers, 101 of 350 MB, 50 MB/s, 5 s left"},
		{2 * time.Second, layer(PhasePull, 2, 200e6, 200e6), false, "2 of 3 layers, 300 of 350 MB, 75 MB/s, 1 s left"},
		{2 * time.Second, layer(PhasePull, 3, 50e6, 50e6), false, "3 of 3 layers, 350 of 350 MB, 58 MB/s"},
		{time.Second, layer(PhaseUnpack, 3, 9e6, 0), true, "0 of 3 layers, 9.0 MB"},
		{time.Second, Progress{Phase: PhaseSquash, Done: 8e6, Total: 16e6}, true, "8.0 of 16 MB"},
		{2 * time.Second, Progress{Phase: PhaseSquash, Done: 12e6, Total: 16e6}, false, "12 of 16 MB, 2.0 MB/s, 2 s left"},
	} {
		at = at.Add(step.after)
		if begins := m.Update(step.p); begins != step.begins {
			t.Errorf("step %d: begins %v", i, begins)
		}
		if got := m.Status().String(); got != step.want && !(got == "" && step.want == "0 of 3 layers, 0.0 MB") {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}

func TestMeterShowsLayersInFlight(t *testing.T) {
	at := time.Unix(0, 0)
	m := &Meter{Now: func() time.Time { return at }}
	for i, total := range []int64{10e6, 20e6, 30e6} {
		m.Update(Progress{Phase: PhasePull, Layer: i + 1, Layers: 3, Total: total})
	}
	at = at.Add(2 * time.Second)
	m.Update(Progress{Phase: PhasePull, Layer: 1, Layers: 3, Done: 10e6, Total: 10e6})
	m.Update(Progress{Phase: PhasePull, Layer: 2, Layers: 3, Done: 4e6, Total: 20e6})
	s := m.Status()
	if len(s.Flight) != 1 || s.Flight[0].Layer != 2 || s.Flight[0].String() != "4.0 of 20 MB, 2.0 MB/s, 8 s left" || s.Finished != 1 {
		t.Errorf("%+v", s)
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		100 * time.Millisecond: "1 s", 59 * time.Second: "59 s", 60 * time.Second: "1 min",
		100 * time.Second: "2 min", 3600 * time.Second: "1 h 0 min", 2*time.Hour + 20*time.Minute: "2 h 20 min",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// TestTotalsAreKnownAtOnce: before the first byte of a layer, so that the time
// left can be told from the start.
func TestTotalsAreKnownAtOnce(t *testing.T) {
	reg := faultyRegistry(t, imageOf(t, tarOf(t, file("f", 0o644, "x")), tarOf(t, file("g", 0o644, "y")), tarOf(t, file("h", 0o644, "z"))))
	for _, c := range []Converter{Stream{}, Umoci{}} {
		m, known, early := &Meter{}, false, false
		_, err := Pull(testContext(t), openStore(t), mustParse(t, reg.Host+"/x:1"), FetchOptions{Converter: c, Progress: func(p Progress) {
			m.Update(p)
			s := m.Status()
			known = known || s.Phase == PhasePull && s.Total > 0
			early = early || p.Done > 0 && !known
		}})
		if err != nil || !known || early {
			t.Errorf("%s: %v, known %v, bytes before that %v", c.Name(), err, known, early)
		}
	}
}

// TestMeterIsBounded: whoever reports cannot make it grow.
func TestMeterIsBounded(t *testing.T) {
	m := &Meter{}
	if m.Update(Progress{Layer: -1}); m.Status().String() != "" {
		t.Errorf("%s", m.Status())
	}
	for i := range 3 * maxMetered {
		m.Update(Progress{Phase: PhasePull, Layer: i - maxMetered, Layers: 5, Done: 1, Total: 2})
	}
	if len(m.layers) > maxMetered+1 || len(m.paces) > maxMetered+1 {
		t.Errorf("%d layers", len(m.layers))
	}
}
