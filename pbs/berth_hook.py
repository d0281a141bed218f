"""Berth's hook for OpenPBS: one file for all events, so that PBS itself brings
all of it to every host, and no host can have half of another release.

    event             where        as    what happens here
    queuejob,         server       root  values are checked; -v CONTAINER_... becomes
    modifyjob                            -l container_...; the tag becomes a digest
    execjob_begin     every node   root  the request goes to `berth-create job`, which
                                         records it, and makes the container while PBS
                                         goes on
    execjob_launch    every task   root  argv only: the task becomes `berth task`
    execjob_epilogue, every node   root  `berth node cleanup`
    _end, _abort
    exechost_startup  every node   root  `berth node reap --pbs`

PBS retries a job whose begin is refused, deletes one whose launch is, and may
take a node offline. So nothing is refused on a node: what goes wrong is
recorded, and the job's own task prints it and ends with exit status 125.

What users say is data for the programs that are started here: their
environment is fixed, and no command line holds it. Python 3.6 and the
standard library are enough.
"""
import grp
import json
import os
import pwd
import re
import select
import subprocess
import time
import urllib.parse

import pbs

# Keys of the configuration file (JSON, `qmgr -c "import hook berth
# application/x-config ..."`), with their defaults.
DEFAULTS = {
    "prefix": "/usr/local",     # where Berth is installed, on every host
    "run_dir": "/run/berth",    # node.run_dir of berth.toml
    "account": "berth",         # who asks registries at submission; "" for nobody
    "pin_timeout": 3,           # how long, in seconds
    "begin_timeout": 0.8,       # how long execjob_begin waits for the record, in seconds
    "check_input": True,        # whether a hook on a node looks for forged lines in its input
}

RESOURCES = ("container_image", "container_mounts", "container_workdir", "container_env", "container_mode")

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}

# How long a cleanup may take, in seconds: PBS's alarm ends a hook after 30.
CLEANUP_TIMEOUT = 20

MAX_VALUE = 16 * 1024  # bytes of one value
MAX_RECORD = 64 * 1024  # bytes of a job's record


class Refused(Exception):
    """What is wrong with a value, for the user, and what to do about it."""


# ---- what users may ask for -------------------------------------------------

HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_-][A-Za-z0-9._-]*)(:[0-9]{1,5})?\Z")
REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\Z")
TAG = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
FILE_ENDS = (".sqsh", ".sqfs", ".squashfs", ".sif", ".simg")
LAYERS = ("oci:", "oci-archive:", "docker-archive:", "dir:")


def kind_of(image):
    """Says what a value of container_image is, as imagecache/reference.go and
    spank/check.c do: "path", "registry", "layers", "file" or "wrong". The three
    are held together by spank/tests/testdata/references.txt."""
    if image[:1] in (".", "/"):
        return "path"
    if image.startswith(LAYERS):
        return "layers"
    explicit = image.startswith("docker://")
    text = image[len("docker://"):] if explicit else image
    text = text.replace("\\#", "#")
    named, digest = cut_digest(text)
    if digest and not DIGEST.match(digest):
        return "wrong"
    if "@" in named:
        user, named = named.rsplit("@", 1)
        if not user:
            return "wrong"
    registry, rest = cut_registry(named)
    name, colon, tag = rest.partition(":")
    if registry is None and not explicit and text.endswith(FILE_ENDS):
        return "file"
    if registry is not None and not HOST.match(registry):
        return "wrong"
    if not REPOSITORY.match(name) or colon and not TAG.match(tag):
        return "wrong"
    return "registry"


def cut_digest(text):
    """Takes @sha256:... off the end."""
    named, at, digest = text.rpartition("@")
    if at and re.match(r"sha[0-9]*:", digest) and "/" not in digest:
        return named, digest
    return text, ""


def cut_registry(text):
    """Takes REGISTRY# or REGISTRY/ off the front; None where there is none."""
    registry, mark, rest = text.partition("#")
    if mark:
        return registry, rest
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return None, text


def check_image(image):
    if not image:
        raise Refused("container_image: the name of the image is empty")
    kind = kind_of(image)
    if kind == "layers":
        raise Refused("container_image=%s has to be converted first: berth save %s x.sqsh, and then "
                      "container_image=./x.sqsh" % (image, image))
    if kind == "file":
        raise Refused("container_image=%s would be looked for in a registry; did you mean ./%s ?" % (image, image))
    if kind == "wrong":
        raise Refused("container_image=%s is no image; write it as [REGISTRY/]NAME[:TAG][@DIGEST], "
                      "for example quay.io/biocontainers/samtools:1.20" % image)


MOUNT_FLAGS = frozenset(
    ["ro", "rw", "nosuid", "nodev", "noexec", "bind", "rbind"]
    + [r + kind for r in ("", "r") for kind in ("private", "slave", "shared", "unbindable")])


def check_mounts(value):
    for entry in value.split(","):
        problem = mount_problem(entry.split(":"))
        if problem:
            raise Refused('container_mounts: "%s": %s; write SRC:DST or SRC:DST:FLAGS, as in /data:/data:ro'
                          % (entry, problem))


def is_path(text):
    return text[:1] in (".", "/")


def mount_problem(fields):
    """Says what launcher/inside/mounts.go would not take."""
    if len(fields) == 2 and is_path(fields[0]) and fields[1] and not is_path(fields[1]):
        fields = [fields[0], fields[0], fields[1]]
    source, target = fields[0], fields[1] if len(fields) > 1 else fields[0]
    if len(fields) > 3:
        return "too many colons"
    if source == "tmpfs" and len(fields) > 1:
        return target_problem(target)
    if source == "umount" and len(fields) == 2:
        return target_problem(target)
    if not is_path(source):
        return "the source must begin with a slash or a dot"
    for flag in fields[2].split("+") if len(fields) == 3 else ():
        if flag not in MOUNT_FLAGS and not flag.startswith("x-"):
            return 'unknown flag "%s"' % flag
    if len(fields) == 1 and not source.startswith("/"):
        return ""  # beside the job's folder, at the same path
    return target_problem(target)


def target_problem(target):
    if not target:
        return "the target is empty"
    clean = os.path.normpath(target)
    if clean == ".." or clean.startswith("../"):
        return "the target leaves the container"
    if clean.strip("/") in ("", "."):
        return "the target can't be /"
    return ""


def check_workdir(value):
    if not value.startswith("/"):
        raise Refused("container_workdir=%s: give a path that begins with /" % value)


def check_env(value):
    for name in value.split(","):
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*\Z", name):
            raise Refused('container_env: "%s" is no name of a variable; write NAME[,NAME]' % name)


def check_mode(value):
    if value not in ("job", "ranks"):
        raise Refused("container_mode=%s: write job (the whole job runs in the container) or ranks "
                      "(the script does not, and starts: mpirun berth exec COMMAND)" % value)


CHECKS = {
    "container_image": check_image, "container_mounts": check_mounts, "container_workdir": check_workdir,
    "container_env": check_env, "container_mode": check_mode,
}


def check(values):
    """Refuses what a job would only fail of later."""
    for name in RESOURCES:
        value = values.get(name)
        if value is None:
            continue
        if len(raw(value)) > MAX_VALUE:
            raise Refused("%s is longer than %d bytes" % (name, MAX_VALUE))
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise Refused("%s has a control character" % name)
        if name == "container_image" and " " in value and not is_path(value):
            raise Refused("container_image=%s: an image reference has no spaces" % value)
        CHECKS[name](value)


# ---- what PBS hands over ----------------------------------------------------

def unescape(text):
    """Undoes what PBS does to values of variables: \\x stands for x."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def entry(mapping, key):
    """One value of what PBS has instead of a dict, None where it is not set."""
    try:
        value = mapping[key]
    except Exception:  # PBS raises its own for a resource that does not exist
        return None
    return None if value is None or str(value) == "" else str(value)


def attribute(job, name):
    """One attribute of a job as text, "" where it has none."""
    try:
        value = getattr(job, name)
    except Exception:
        return ""
    return "" if value is None else str(value)


def resources(job):
    """The container_... resources that are set."""
    found = {name: entry(job.Resource_List, name) for name in RESOURCES}
    return {name: value for name, value in found.items() if value is not None}


def variables(job):
    """What was asked for by -v CONTAINER_IMAGE=... and the like."""
    found = {name: entry(job.Variable_List, name.upper()) for name in RESOURCES}
    return {name: unescape(value) for name, value in found.items() if value is not None}


# PBS writes a node's hooks their input as lines; a user's newline begins one.
FORGED = re.compile(r"[\r\n][ \t]*pbs\.")


def refuse_forgery(job):
    """Refuses a job, with or without a container, whose text would become lines
    of PBS's own in the input of hooks on nodes."""
    for name in ("Variable_List", "Submit_arguments", "Resource_List", "Job_Name", "Account_Name", "project",
                 "Executable", "Arglist", "argument_list", "executable", "Output_Path", "Error_Path", "Shell_Path_List"):
        if FORGED.search(attribute(job, name).replace("\\\n", "\n")):
            raise Refused("%s: a line that begins with \"pbs.\" would be taken for PBS's own; change it" % name)


# ---- submission -------------------------------------------------------------

def queuejob(event, config):
    job = event.job
    refuse_forgery(job)
    values = variables(job)
    values.update(resources(job))
    if not values:
        return
    if "container_image" not in values:
        raise Refused("%s needs container_image" % sorted(values)[0])
    check(values)
    values["container_image"] = pin(values["container_image"], config)
    for name, value in values.items():
        job.Resource_List[name] = value


def modifyjob(event, config):
    """qalter: only what is changed is in event.job."""
    job = event.job
    refuse_forgery(job)
    values = resources(job)
    check(values)
    if "container_image" in values:
        job.Resource_List["container_image"] = pin(values["container_image"], config)


def pin(image, config):
    """Returns the image with the digest that its tag means now, so that all
    nodes, parts of an array and reruns use the same. Where nobody can say, it
    stays as it is: a private image, say, whose login is the user's."""
    if kind_of(image) != "registry" or "@sha256:" in image or not config["account"]:
        return image
    digest = resolve(image, config)
    if not digest:
        return image
    # A tag beside the digest says to the reader what it was.
    return image + "@" + digest


def resolve(image, config):
    """Has the account ask the registry: root opens no connection. The account's
    environment is fixed, and it has no logins."""
    seconds = float(config["pin_timeout"])
    berth = os.path.join(config["prefix"], "bin", "berth")
    try:
        account = pwd.getpwnam(config["account"])
        process = start(["setpriv", "--reuid=%d" % account.pw_uid, "--regid=%d" % account.pw_gid, "--init-groups",
                         "--inh-caps=-all", berth, "resolve", "--timeout", "%gs" % seconds, "--", image])
        out, err = process.communicate(timeout=seconds + 1)
    except subprocess.TimeoutExpired:
        kill(process)
        out, err = b"", b"no answer"
    except (OSError, KeyError) as error:
        out, err = b"", str(error).encode()
    digest = out.decode("ascii", "replace").strip()
    if DIGEST.match(digest):
        return digest
    log("not pinned: %s: %s" % (image, (err or out).decode("utf-8", "replace").strip().partition("\n")[0]))
    return ""


# ---- nodes ------------------------------------------------------------------

JOB_ID = re.compile(r"[0-9]{1,18}(\[[0-9]{1,18}\])?\.[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def job_id(job):
    """The job's id, which becomes a path's element on nodes."""
    text = str(job.id)
    if not JOB_ID.match(text):
        raise ValueError("not a job's id: %r" % text)
    return text


def begin(event, config):
    """Starts what makes the container, in a session of its own: PBS kills the
    hook's group when the hook ends. Waits until it is recorded who asked for
    what; the tasks wait for the rest."""
    values = resources(event.job)
    if "container_image" not in values:
        return
    refuse_forged_input(config)
    cleanup(event, config)  # of a former run, if pbs_mom died in it
    data = encode(request(event, values))
    process = start([os.path.join(config["prefix"], "libexec", "berth", "berth-create"), "job"], subprocess.DEVNULL)
    try:
        process.stdin.write(data)
        process.stdin.close()
        answer = read_line(process.stdout, float(config["begin_timeout"]))
    except OSError as error:
        answer = str(error)
    if answer != "recorded":
        log("job %s: %s" % (event.job.id, answer or "the record takes long; its tasks wait for it"))


def request(event, values):
    """What `berth-create job` reads. Who the user is, is the server's word."""
    job = event.job
    user = pwd.getpwnam(str(job.euser))
    group = attribute(job, "egroup")
    gid = grp.getgrnam(group).gr_gid if group else user.pw_gid
    records = [
        ("job", job_id(job)), ("uid", user.pw_uid), ("gid", gid),
        ("groups", ",".join(str(g) for g in os.getgrouplist(user.pw_name, gid))),
        ("account", attribute(job, "Account_Name")), ("queue", attribute(job, "queue")),
        ("nodes", len(hosts(job))), ("dir", unescape(entry(job.Variable_List, "PBS_O_WORKDIR") or "")),
    ]
    for name in RESOURCES:
        if name in values:
            records.append((name[len("container_"):], values[name]))
    return records + places()


def hosts(job):
    """The hosts of n1/0+n2/0*2."""
    return {chunk.split("/")[0] for chunk in attribute(job, "exec_host").split("+") if chunk}


def places():
    """What PBS needs at the same path inside: its programs and settings, the
    folders of job scripts and node files, and where pbs_mom makes TMPDIR."""
    conf = settings("/etc/pbs.conf", "=")
    home = conf.get("PBS_HOME", "/var/spool/pbs")
    tmpdir = settings(home + "/mom_priv/config", None).get("$tmpdir", "/var/tmp")
    visible = [conf.get("PBS_EXEC", "/opt/pbs"), "/etc/pbs.conf", home + "/mom_priv/jobs", home + "/aux"]
    return [("pbs_exec", visible[0]), ("tmpdir", tmpdir)] + [("visible", path) for path in visible]


def settings(path, separator):
    """Reads lines KEY=VALUE or KEY VALUE of a file of root's."""
    found = {}
    try:
        with open(path) as lines:
            for line in lines:
                key_value = line.split("#")[0].strip().split(separator, 1)
                if len(key_value) == 2:
                    found[key_value[0].strip()] = key_value[1].strip().strip('"')
    except OSError:
        pass
    return found


ONCE = tuple("pbs.event().job.%s=" % name for name in ("id", "euser", "egroup", "queue", "Account_Name"))


def refuse_forged_input(config):
    """Looks at the lines that pbs_python made the event from: which job it is,
    and whose, must be in them once, or a job could have root act on another's.
    refuse_forgery keeps jobs out that try, if they come through this hook."""
    if not config["check_input"]:
        return
    try:
        with open("/proc/self/cmdline", "rb") as f:
            arguments = f.read().split(b"\0")
        with open(arguments[arguments.index(b"-i") + 1], errors="replace") as f:
            lines = f.read().splitlines()
    except (OSError, ValueError, IndexError) as error:
        raise ValueError("the hook's input can't be looked at (check_input): %s" % error)
    for once in ONCE:
        if sum(line.lstrip().startswith(once) for line in lines) > 1:
            raise ValueError("the hook's input has %s more than once: somebody forges it" % once)


def launch(event, config):
    """Puts `berth task` in front of a task. Nothing here is privileged, and what
    the event and the record say can be forged by the job's user, to their own
    harm only; the record at least not by a slip in their environment."""
    values = resources(event.job)
    record = read_record(event, config)
    if record is None and "container_image" not in values:
        return
    mode = (record or {}).get("mode", values.get("container_mode"))
    if mode == "ranks":
        return
    inner = [str(a) for a in event.argv or []]
    shell = [] if inner else ["--shell"]  # a script's, or a terminal's
    # Not as a login shell: the image's /etc/profile would replace its own PATH.
    inner = inner or [str(event.progname)]
    berth = os.path.join(config["prefix"], "bin", "berth")
    if not os.access(berth, os.X_OK):
        return fail_task(event, berth + " is not on this node")
    event.progname = berth
    event.argv = ["berth", "task", "--job=" + job_id(event.job)] + shell + ["--"] + [escape(a) for a in inner]


def read_record(event, config):
    """The record that `berth-create job` made for the job's tasks, or None. Its
    user may have changed it since."""
    try:
        with open(os.path.join(config["run_dir"], "jobs", job_id(event.job), "record.json"), "rb") as f:
            record = json.loads(f.read(MAX_RECORD).decode("utf-8"))
    except OSError:
        return None
    except ValueError:
        record = {}
    return record if isinstance(record, dict) else {}


def escape(argument):
    """PBS hands arguments on as lines and drops empty ones: what is sent is one
    line that is never empty. cmd/berth/task.go undoes it."""
    return "=" + urllib.parse.quote(raw(argument), safe="/:=@,+ ")


def fail_task(event, cause):
    """Makes the task a message in the job's output: a refused launch would
    delete the job without a word."""
    event.progname = "/bin/sh"
    event.argv = ["sh", "-c", 'echo "berth: error: $0" >&2; echo "berth:   tell your administrator" >&2; exit 125',
                  str(cause).replace("\n", " ")]


def cleanup(event, config):
    """May be called any number of times."""
    job = job_id(event.job)
    if os.path.isdir(os.path.join(config["run_dir"], "jobs", job)):
        refuse_forged_input(config)
        finish([os.path.join(config["prefix"], "bin", "berth"), "node", "cleanup"], encode([("job", job)]))


def startup(event, config):
    """What jobs left that ended while pbs_mom did not run."""
    if os.path.isdir(os.path.join(config["run_dir"], "jobs")):
        finish([os.path.join(config["prefix"], "bin", "berth"), "node", "reap", "--pbs"], b"")


# ---- programs ---------------------------------------------------------------

def encode(records):
    """The wire format of launcher/wire."""
    data = b""
    for key, value in records:
        record = raw("%s=%s" % (key, value))
        if b"\0" in record:
            raise ValueError("%s has a NUL" % key)
        data += record + b"\0"
    return data


def raw(text):
    """Text as PBS had it, whatever the locale of the hook's interpreter."""
    return text.encode("utf-8", "surrogateescape")


def start(command, stderr=subprocess.PIPE):
    """Starts a program with a fixed environment, in a session of its own."""
    return subprocess.Popen(command, env=ENVIRONMENT, cwd="/", start_new_session=True, close_fds=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)


def finish(command, data):
    """Runs a program to its end, within bounds; what it says is for the log."""
    process = start(command)
    try:
        _, err = process.communicate(data, timeout=CLEANUP_TIMEOUT)
    except subprocess.TimeoutExpired:
        kill(process)
        err = b"it takes too long"
    if process.returncode != 0:
        log("%s: %s" % (" ".join(command[1:]), err.decode("utf-8", "replace").strip()))


def kill(process):
    process.kill()
    process.communicate()


def read_line(pipe, seconds):
    """The first line of a pipe, "" if it does not come in time."""
    end, data = time.time() + seconds, b""
    while b"\n" not in data:
        ready, _, _ = select.select([pipe], [], [], max(0, end - time.time()))
        chunk = os.read(pipe.fileno(), 4096) if ready else b""
        if not chunk:
            break
        data += chunk
    return data.split(b"\n")[0].decode("utf-8", "replace")


# ---- events -----------------------------------------------------------------

def log(text):
    pbs.logmsg(pbs.LOG_WARNING, "berth: " + re.sub(r"[\x00-\x1f\x7f]", " ", text))


def handlers():
    return {
        pbs.QUEUEJOB: queuejob, pbs.MODIFYJOB: modifyjob,
        pbs.EXECJOB_BEGIN: begin, pbs.EXECJOB_LAUNCH: launch,
        pbs.EXECJOB_EPILOGUE: cleanup, pbs.EXECJOB_END: cleanup, pbs.EXECJOB_ABORT: cleanup,
        pbs.EXECHOST_STARTUP: startup,
    }


def load_config():
    config = dict(DEFAULTS)
    if pbs.hook_config_filename:
        with open(pbs.hook_config_filename) as f:
            given = json.load(f)
        unknown = sorted(set(given) - set(DEFAULTS))
        if unknown:
            raise ValueError("unknown settings in the hook's configuration: " + ", ".join(unknown))
        config.update(given)
    return config


def main():
    event = pbs.event()
    try:
        handlers()[event.type](event, load_config())
    except Refused as refused:
        event.reject("berth: %s" % refused)
    except Exception as error:  # SystemExit, which accept and reject raise, is none
        failed(event, error)
    event.accept()


def failed(event, error):
    """A fault of ours or of the site's stops no job that has no container, and
    lets none with one run outside of it."""
    log("%s: %s" % (type(error).__name__, error))
    if event.type in (pbs.QUEUEJOB, pbs.MODIFYJOB) and (resources(event.job) or variables(event.job)):
        event.reject("berth: the hook failed (%s); tell your administrator" % error)
    if event.type == pbs.EXECJOB_LAUNCH and "container_image" in resources(event.job):
        fail_task(event, "the hook failed: %s" % error)


main()
