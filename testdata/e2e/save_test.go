package e2e

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSave is --container-save to files: what is saved, when, by whom, and what
// becomes of a save that fails. With idmapped mounts only what differs then is
// looked at, which is what lies below the changes.
func TestSave(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		idmapped := strings.Contains(t.Name(), "idmap=true")
		s.prepareNames(t)
		image := " --container-image=" + tiny + " "
		save := "srun -w n1 -n1" + image + "--container-save="
		run := "srun -w n2 -n1 --container-image="
		full := "mkdir -p /var/full && mount -t tmpfs -o size=1m,mode=1777 tmpfs /var/full"
		s.With(t).MustRun(t.Context(), "n1", "root", "sh", "-c", full)
		for i, tc := range []struct {
			name, user, script string
			code               int
			stdout, stderr     string
		}{
			{
				"what has become of it", "alice", save + "./a.sqsh sh -c 'echo one >/f; rm /bin/vi; chmod u+s /f; test $SLURM_TASK_PID = $$' && " +
					run + "./a.sqsh sh -c 'cat /f; test -e /bin/vi || echo $TINY_IMAGE'; unsquashfs -lls a.sqsh | grep -E '/f$|berth|shared|/vi|spool'",
				0, `^one\n1\n-rw-r--r-- root/root +4 \S+ \S+ squashfs-root/f\n$`,
				`berth: saved the container to /home/alice/a.sqsh\n`,
			},
			{"once more, over itself", "alice", "srun -w n1 --container-image=./a.sqsh --container-save=a.sqsh sh -c 'echo two >>/f' && " + run + "./a.sqsh cat /f", 0, `^one\ntwo\n$`, ``},
			{"nothing changed", "alice", save + "same.sqsh true && " + run + "./same.sqsh sh -c 'echo $TINY_IMAGE'", 0, `^1\n$`, `saved`},
			{"read-only", "alice", save + "ro.sqsh --container-readonly sh -c 'echo x >/f'; " + run + "./ro.sqsh ls /f /bin/busybox", 1, `^/bin/busybox\n$`, `Read-only file system(?s).*saved`},
			{"the task's exit code", "alice", save + "seven.sqsh sh -c 'echo 7 >/f; exit 7'; echo $?; " + run + "./seven.sqsh cat /f", 0, `^7\n7\n$`, `saved`},
			{"no such command", "alice", save + "none.sqsh no-such-command; echo $?", 0, `^2\n$`, `no-such-command`},
			{
				"all tasks of the node", "alice", "srun -w n1 -n3 --overcommit" + image + "--container-save=three.sqsh sh -c 'sleep $SLURM_PROCID; echo $SLURM_PROCID >/f$SLURM_PROCID' && " +
					run + "./three.sqsh sh -c 'cat /f?'", 0, `^0\n1\n2\n$`, `saved`,
			},
			{
				"the batch script alone", "alice", "cat >job.sh <<'END'\n#!/bin/sh\necho script >/f\nEND\n" +
					"cat >outer.sh <<'END'\n#!/bin/sh\nsrun -n1 sh -c 'test -e /bin/busybox && echo step'; env | grep -c CONTAINER_SAVE\nEND\n" +
					"sbatch -W -w n1 -o /dev/null" + image + "--container-save=batch.sqsh job.sh >/dev/null && " + run + "./batch.sqsh cat /f; " +
					"rm batch.sqsh; BERTH_CONTAINER_SAVE=batch.sqsh sbatch -W -w n1 -o /shared/batch.out --container-slurm" + image + "outer.sh >/dev/null; cat /shared/batch.out; ls batch.sqsh",
				0, `^script\nstep\n0\nberth: saved the container to \S+\nbatch.sqsh\n$`, ``,
			},
			{"its signals", "alice", "cat >trap.sh <<'END'\n#!/bin/sh\ntrap 'echo caught >/f; exit 3' USR1\n: >~/up\nwhile :; do sleep 0.1; done\nEND\n" +
				"id=$(sbatch --parsable -w n1 -o /dev/null" + image + "--container-save=trap.sqsh trap.sh); until [ -e up ]; do sleep 0.1; done; rm up; " +
				"scancel -b -s USR1 $id; until [ -e trap.sqsh ]; do sleep 0.1; done; " + run + "./trap.sqsh cat /f", 0, `^caught\n$`, ``},
			{"a terminal", "alice", `script -qec "` + save + `tty.sqsh --pty sh -c 'tty; echo t >/f'" /dev/null </dev/null; ` + run + "./tty.sqsh cat /f", 0, `(?s)/dev/pts/\d+.*saved the container.*\nt\n$`, ``},
			{
				"a container with a name", "alice", "salloc -Q -w n1 -n2 --overcommit bash -c 'srun --overlap -n1 --container-name=k" + image + "sh -c \"echo one >/f\"; " +
					"srun --overlap -n1 --container-name=k sh -c \"echo two >>/f; : >/up; while [ ! -e /down ]; do sleep 0.1; done\" & " +
					"until srun --overlap -n1 --container-name=k:exec --container-save=joined.sqsh ls /up; do sleep 0.2; done; " +
					"srun --overlap -n1 --container-name=k touch /down; wait' 2>/dev/null; " + run + "./joined.sqsh sh -c 'cat /f; echo $TINY_IMAGE'",
				0, `^/up\none\ntwo\n1\n$`, ``,
			},
			{
				"a step's container", "alice", "salloc -Q -w n1 -n2 --overcommit bash -c 'srun -n1 --overlap" + image + "sleep 60 & sleep 2; " +
					"srun -n1 --overlap --container-name=$SLURM_JOB_ID.0 --container-save=x.sqsh true; code=$?; kill %1; exit $code'", 1, ``, `it belongs to its step`,
			},
			{"a folder's tree", "alice", "unsquashfs -q -n -d tree a.sqsh >/dev/null 2>&1; srun -w n1 --container-image=./tree --container-save=tree.sqsh sh -c 'echo three >>/f' && " + run + "./tree.sqsh cat /f", 0, `^one\ntwo\nthree\n$`, ``},
			{"a folder", "alice", save + "/shared true; " + save + "x/ true; " + save + " true; mkdir -p d; " + save + "d true; echo $?", 0, `^1\n$`, `(?s)/shared is a folder.*x/ is a folder.*path is empty.*d is a folder`},
			{"neither", "alice", save + "oci:x true; " + save + "https://x true; " + save + "docker:// true; echo $?", 0, `^255\n$`, `(?s)neither a path.*neither a path.*write docker://`},
			{"no place of theirs", "alice", save + "/etc/x.sqsh echo ran; " + save + "/no/such/x.sqsh echo ran", 1, `^$`, `(?s)/etc/x.sqsh: no file can be made in /etc on this node: Permission denied.*/no/such on this node: No such file`},
			{"several nodes", "alice", "srun -N2" + image + "--container-save=x.sqsh echo ran; ls x.sqsh", 2, `^$`, `the step has 2 nodes(?s).*srun -N1`},
			{"somebody else's file", "bob", "echo bobs >/shared/bobs; chmod 666 /shared/bobs", 0, ``, ``},
			{"through a link", "alice", "ln -sf /shared/bobs link.sqsh; " + save + "link.sqsh true && ls -l link.sqsh | cut -c1 && cat /shared/bobs", 0, `^-\nbobs\n$`, ``},
			{"no room", "alice", "srun -w n1 sh -c 'echo old >/var/full/x.sqsh'; " + save + "/var/full/x.sqsh dd if=/dev/urandom of=/f bs=1M count=3; echo $?; srun -w n1 sh -c 'cat /var/full/x.sqsh; ls -A /var/full'", 0, `^75\nold\nx.sqsh\n$`, `error: save /var/full/x.sqsh:.*[Nn]o space left(?s).*make room`},
		} {
			if i >= 2 && idmapped {
				break
			}
			t.Run(tc.name, func(t *testing.T) { s.expect(t, tc.user, tc.script, tc.code, tc.stdout, tc.stderr) })
		}
		if idmapped {
			s.idle(t)
			return
		}
		t.Run("two users at once", s.saveTwo)
		t.Run("cancelled", s.saveCancelled)
		s.clean(t)
	}, names("job"))
}

// saveTwo has two users save on one node at a time; what is written is theirs.
func (s *site) saveTwo(t *testing.T) {
	var both sync.WaitGroup
	for _, user := range []string{"alice", "bob"} {
		both.Go(func() {
			s.expect(t, user, "srun -w n1 -n1 --container-image="+tiny+" --container-save=mine.sqsh sh -c 'id -u >/f; sleep 1' && "+
				"srun -w n2 -n1 --container-image=./mine.sqsh sh -c 'test $(cat /f) = $(id -u)' && stat -c %U mine.sqsh", 0, "^"+user+`\n$`, `saved`)
		})
	}
	both.Wait()
}

// A step that is cancelled is not saved, whether it runs or is being saved.
func (s *site) saveCancelled(t *testing.T) {
	for name, script := range map[string]string{"runs": "sleep 60", "is being saved": "dd if=/dev/urandom of=/f bs=1M count=400"} {
		t.Run(name, func(t *testing.T) {
			s.as(t, "alice", "rm -f up; echo old >old.sqsh")
			id := s.submit(t, "-w n1 -o /home/alice/out --container-image="+tiny+" --container-save=old.sqsh --wrap ': >~/up; "+script+"'")
			until(t, 30*time.Second, "the task runs, or has ended", func() bool {
				ended := map[bool]string{true: " && ! pgrep -f '[s]lurm_script'"}[strings.HasPrefix(script, "dd")]
				return s.With(t).Run(t.Context(), "n1", "root", "sh", "-c", "test -e /home/alice/up && pgrep -f '[s]ave-step'"+ended).Code == 0
			})
			s.With(t).MustRun(t.Context(), "ctl", "root", "scancel", id)
			if state, _ := s.ended(t, id, 60*time.Second); state != "CANCELLED" {
				t.Errorf("is %s", state)
			}
			s.expect(t, "alice", "cat old.sqsh; ls -A | grep -c 'old.sqsh'", 0, `^old\n1\n$`, ``)
			s.idle(t)
		})
	}
}

// TestSaveToRegistry is --container-save to a registry that lets users in with
// their logins: the image's own layers and one of changes are pushed by the
// user, who is told before the task starts that they may not.
func TestSaveToRegistry(t *testing.T) {
	s := closedSite(t)
	save := "srun -w n1 -n1 --container-image=" + tiny + " --container-save=docker://" + closed
	layers := "berth save " + tiny + " oci:old >/dev/null; berth save " + closed + "/alice/saved:1 oci:new >/dev/null; " +
		"echo $(($(ls new/blobs/sha256 | wc -l) - $(ls old/blobs/sha256 | wc -l))); ls old/blobs/sha256 new/blobs/sha256 | sort | uniq -d | grep -c ."
	s.expect(t, "alice", save+"/alice/saved:1 sh -c 'echo one >/f; rm /bin/vi; exit 3'", 3, ``, `berth: saved the container to `+closed+`/alice/saved:1 as sha256:[0-9a-f]{64}\n`)
	s.expect(t, "alice", "srun -w n2 -n1 --container-image="+closed+"/alice/saved:1 sh -c 'cat /f; ls /bin/vi'; "+layers, 0, `^one\n1\n2\n$`, `/bin/vi: No such file`)
	s.expect(t, "alice", save+"/alice/same:1 true", 0, ``, `as sha256:`)
	s.expect(t, "bob", save+"/alice/saved:2 echo ran", 64, `^$`, `error: push to `+closed+`/alice/saved:2: .*\nberth:   this login may not write`)
	s.expect(t, "alice", save+"/alice/UPPER:2 echo ran", 64, `^$`, `UPPER`)
	s.secretIsNowhere(t, "n1")
	t.Run("hangs", func(t *testing.T) {
		id := s.submit(t, "-w n1 -o /home/alice/out --container-image="+tiny+" --container-save=docker://"+closed+"/alice/hangs:1 --wrap 'echo x >/f; : >~/up; while [ ! -e ~/go ]; do sleep 0.1; done'")
		until(t, 30*time.Second, "the task runs", func() bool { return s.as(t, "alice", "test -e up").Code == 0 })
		s.With(t).MustRun(t.Context(), "ctl", "root", "sh", "-c", "kill -STOP $(pgrep -f '[l]isten "+closed+"') && touch /home/alice/go")
		until(t, 30*time.Second, "the task has ended", func() bool {
			return s.With(t).Run(t.Context(), "n1", "root", "sh", "-c", "pgrep -f '[s]ave-step' && ! pgrep -f '[s]lurm_script'").Code == 0
		})
		s.With(t).MustRun(t.Context(), "ctl", "root", "scancel", id)
		if state, _ := s.ended(t, id, 60*time.Second); state != "CANCELLED" {
			t.Errorf("is %s", state)
		}
		s.expect(t, "alice", "cat out", 0, `error: push to .*: the step was told to end\n`, ``)
		s.With(t).MustRun(t.Context(), "ctl", "root", "sh", "-c", "kill -CONT $(pgrep -f '[l]isten "+closed+"')")
	})
	s.clean(t)
}
