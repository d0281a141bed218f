package inside

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/launcher"
)

// siteMounts are the admin's mounts for this user and job. One whose path
// can't be completed, as of a job's folder where there is no job, is left out.
func siteMounts(req *launcher.Request) ([]bind, error) {
	var all []bind
	values := pathValues(req)
	for _, item := range req.Site.Mounts {
		full, ok := launcher.Expand(item, values)
		if !ok {
			continue
		}
		b, err := siteMount(full)
		if err != nil {
			return nil, siteError(fmt.Sprintf("the site's mount %q: %v", item, err), "correct container.mounts in berth.toml")
		}
		all = append(all, b)
	}
	return all, nil
}

// siteMount reads one of the admin's mounts, which has flags that the user's
// have not: nodes may lack the source, unless it is required.
func siteMount(item string) (bind, error) {
	fields := strings.Split(item, ":")
	required := false
	if len(fields) == 3 {
		words := strings.Split(fields[2], "+")
		required = slices.Contains(words, "required")
		words = slices.DeleteFunc(words, func(w string) bool { return w == "required" || w == "optional" })
		if fields[2] = strings.Join(words, "+"); len(words) == 0 {
			fields = fields[:2]
		}
	}
	b, err := parseMount(strings.Join(fields, ":"), "/")
	b.by, b.optional = bySite, !required
	return b, err
}

// pathValues says what stands for %u and the like in the admin's paths;
// settings.go of package config documents them.
func pathValues(req *launcher.Request) map[byte]string {
	host, _ := os.Hostname()
	host, _, _ = strings.Cut(host, ".")
	return map[byte]string{
		'%': "%", 'u': req.User.Name, 'U': strconv.Itoa(req.User.UID), 'h': req.User.Home,
		'g': groupName(req.User.GID, ""), 'G': strconv.Itoa(req.User.GID), 'j': req.Job.ID, 'H': host,
	}
}
