package e2e

import "testing"

const noteHook = `{"version": "1.0.0", "hook": {"path": "/etc/berth/note", "args": ["note"], "env": ["NOTE=/shared/hook.log"]},
 "when": {"commands": ["busybox"]}, "stages": ["createRuntime", "createContainer"]}`

const failHook = `{"version": "1.0.0", "hook": {"path": "/bin/sh", "args": ["sh", "-c", "echo no licence; exit 3"]},
 "when": {"commands": ["^false$"]}, "stages": ["createContainer"]}`

// strangersHook is one that root did not write alone.
const strangersHook = `{"version": "1.0.0", "hook": {"path": "/bin/false"}, "when": {"always": true}, "stages": ["createRuntime"]}`

// TestHooks has the site's hooks run on nodes: once per container, as the user.
func TestHooks(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		s.MustRun(t.Context(), "n1", "root", "sh", "-c", `chmod 666 /etc/berth/hooks.d/stranger.json
			printf '#!/bin/sh\nid -u >>$NOTE; grep -c . /proc/self/uid_map >>$NOTE\n' >/etc/berth/note
			chmod 755 /etc/berth/note; touch /shared/hook.log; chown alice /shared/hook.log; chmod 600 /shared/hook.log`)
		r := s.as(t, "alice", "srun -w n1 -n3 --container-image="+tiny+" busybox echo done")
		check(t, r, 0, "^done\ndone\ndone\n$", "")
		// What was written is the user's: the file is theirs alone. Two stages,
		// one container.
		r = s.as(t, "alice", "stat -c %U /shared/hook.log; grep -c ^0$ /shared/hook.log; wc -l </shared/hook.log")
		check(t, r, 0, "^alice\n2\n4\n$", "")
		r = s.as(t, "alice", "srun -w n1 --container-image="+tiny+" false")
		check(t, r, 1, "^$", `hook fail \(sh\): exit status 3: no licence`)
		r = s.as(t, "alice", "srun -w n1 --container-image="+tiny+" true")
		check(t, r, 0, "^$", "")
		r = s.Run(t.Context(), "n1", "root", "berth", "doctor")
		check(t, r, r.Code, `warn  hooks: .*/stranger\.json is not used: others may write to `, "")
		s.idle(t)
	}, withFiles(
		writeFile(t, "note.json", noteHook)+":/etc/berth/hooks.d/note.json",
		writeFile(t, "fail.json", failHook)+":/etc/berth/hooks.d/fail.json",
		writeFile(t, "stranger.json", strangersHook)+":/etc/berth/hooks.d/stranger.json",
	))
}
