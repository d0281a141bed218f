package store

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// collected tries one collection on a store with the images a, the oldest,
// to d, the youngest, each of size bytes: a leased, b kept.
func collected(t *testing.T, change func(*ClusterOptions), do func(*Cluster) error) (left []string) {
	t.Helper()
	c := newCrowd(t)
	ctx := testContext(t)
	s := c.node(change)
	for i, name := range []byte("abcd") {
		c.publish(digest(name))
		used := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(s.image(name).Rootfs(), used, used); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Lease(ctx, digest('a')); err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(digest('b'), "", Keep{}); err != nil {
		t.Fatal(err)
	}
	if err := do(s); err != nil {
		t.Fatal(err)
	}
	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, im := range images {
		left = append(left, im.Digest().Hex()[:1])
	}
	slices.Sort(left)
	return left
}

func TestClusterCollect(t *testing.T) {
	const size = int64(len(contents))
	collect := func(col Collection) func(*Cluster) error {
		return func(s *Cluster) error {
			_, err := s.Collect(testContext(t), col)
			return err
		}
	}
	quota := func(quota, low int64) func(*ClusterOptions) {
		return func(o *ClusterOptions) { o.Quota, o.LowWater = quota, low }
	}
	for _, tc := range []struct {
		name   string
		change func(*ClusterOptions)
		do     func(*Cluster) error
		left   []string
	}{
		{"nothing to do", nil, collect(Collection{}), []string{"a", "b", "c", "d"}},
		{"unused", nil, collect(Collection{UnusedFor: time.Hour}), []string{"a", "b"}},
		{"not unused for so long", nil, collect(Collection{UnusedFor: 7*time.Hour + 30*time.Minute}), []string{"a", "b", "d"}},
		{"only asked", nil, collect(Collection{UnusedFor: time.Hour, DryRun: true}), []string{"a", "b", "c", "d"}},
		{"within the quota", quota(4*size, size), collect(Collection{}), []string{"a", "b", "c", "d"}},
		{"over the quota, the longest unused first", quota(4*size-1, 3*size), collect(Collection{}), []string{"a", "b", "d"}},
		{"down to the low water", quota(4*size-1, 2*size), collect(Collection{}), []string{"a", "b"}},
		{"lower than can be", quota(1, 0), collect(Collection{}), []string{"a", "b"}},
		{"after a pull, but for what was pulled", quota(3*size, 3*size), func(s *Cluster) error {
			_, err := s.collectImages(Collection{}, Key(digest('c')))
			return err
		}, []string{"a", "b", "c"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if left := collected(t, tc.change, tc.do); !slices.Equal(left, tc.left) {
				t.Errorf("left %v, want %v", left, tc.left)
			}
		})
	}
}

// What a dry run says is what goes.
func TestClusterCollectSays(t *testing.T) {
	collected(t, nil, func(s *Cluster) error {
		would, err := s.Collect(testContext(t), Collection{UnusedFor: time.Hour, DryRun: true})
		if err != nil {
			return err
		}
		did, err := s.Collect(testContext(t), Collection{UnusedFor: time.Hour})
		if fmt.Sprint(would) != fmt.Sprint(did) || len(did) != 2 || did[0].Reason != ReasonUnused {
			t.Errorf("would remove %v, removed %v", would, did)
		}
		return err
	})
}

// Who fills a store that is over its quota makes room in it.
func TestClusterFillMakesRoom(t *testing.T) {
	c := newCrowd(t)
	c.publish(digest('b'))
	p := part{Root: c.root, Host: "here", Stale: time.Second}
	s := c.node(func(o *ClusterOptions) { o.Quota, o.LowWater = 1, 0 })
	src, err := s.fill(testContext(t), digest('a'), func(string, string) {}, p.filling(s))
	if err != nil {
		t.Fatal(err)
	}
	src.Close()
	images, err := s.List()
	if err != nil || len(images) != 1 || images[0].Digest() != digest('a') {
		t.Errorf("left %v, %v", images, err)
	}
}
