"""Runs a hook for an event as OpenPBS does, with the stand-in for its module:

    run_hook.py --hook -i INPUT -o OUTPUT -L LOG [-c CONFIG] -r RESOURCES SCRIPT

INPUT and OUTPUT hold a line NAME=VALUE for each value, as those that pbs_mom
and pbs_python exchange, with all that this does to values: an argument ends at
its first newline and loses blanks at both ends, an empty one is lost, a
variable that holds newlines can begin lines of its own. RESOURCES has the names of the resources that are
defined, a line each.

Submission (queuejob, modifyjob) happens inside of the server, without lines: for
those events INPUT is JSON.
"""
import getopt
import json
import re
import sys

import pbs


def read_lines(path):
    """The assignments of a file, in order. A value that begins with three quotes
    goes on to a line that ends with three."""
    with open(path, errors="surrogateescape", newline="\n") as f:
        lines = f.read().split("\n")
    found, i = [], 0
    while i < len(lines):
        name, equals, value = lines[i].partition("=")
        i += 1
        if not equals:
            continue
        value = value.lstrip()
        if value.startswith('"""'):
            while not (value.endswith('"""') and len(value) >= 6) and i < len(lines):
                value, i = value + "\n" + lines[i], i + 1
            value = value[3:-3]
        found.append((name, value.rstrip()))
    return found


def split_variables(text):
    """Splits A=b,C=d at commas without a backslash. Escapes stay in the values."""
    found = pbs.Variables()
    for part in re.findall(r"(?:[^,\\]|\\.)+", text, flags=re.DOTALL):
        name, equals, value = part.partition("=")
        if equals:
            found[name] = value
    return found


def event_of_lines(path, defined):
    """What comes later wins, as with pbs_python."""
    event_name, attributes, values, variables, argv = "", {}, {}, pbs.Variables(), {}
    progname, env = None, pbs.Variables()
    for name, value in read_lines(path):
        resource = re.match(r"pbs\.event\(\)\.job\.Resource_List\[(\w+)\]$", name)
        argument = re.match(r"pbs\.event\(\)\.argv\[(\d+)\]$", name)
        attribute = re.match(r"pbs\.event\(\)\.job\.(\w+)$", name)
        if resource:
            values[resource.group(1)] = value
        elif argument:
            argv[int(argument.group(1))] = value
        elif name == "pbs.event().job.Variable_List":
            variables = split_variables(value)
        elif attribute:
            attributes[attribute.group(1)] = value
        elif name == "pbs.event().type":
            event_name = value
        elif name == "pbs.event().progname":
            progname = value
        elif name == "pbs.event().env":
            env = split_variables(value)
    type = pbs.NAMES[event_name]
    job = pbs.Job(attributes, pbs.Resources(defined, values, False), variables)
    launch = (progname, [argv[i] for i in sorted(argv) if argv[i] != ""], env)
    return pbs.Event(type, job, launch if type == pbs.EXECJOB_LAUNCH else None)


def event_of_json(path, defined):
    with open(path) as f:
        given = json.load(f)
    resources = pbs.Resources(defined, given.get("resources") or {}, True)
    job = pbs.Job(given.get("attributes") or {}, resources, pbs.Variables(given.get("variables") or {}))
    return pbs.Event(pbs.NAMES[given["event"]], job, None)


def one_line(value):
    return str(value).split("\n")[0]


def write(path, event):
    with open(path, "w", errors="surrogateescape") as f:
        f.write("pbs.event().result=%s\n" % (event.result or "error"))
        f.write("pbs.event().message=%s\n" % one_line(event.message))
        for name, value in sorted(event.job.Resource_List.changed.items()):
            f.write("pbs.event().job.Resource_List[%s]=%s\n" % (name, one_line(value)))
        if event.type == pbs.EXECJOB_LAUNCH:
            f.write("pbs.event().progname=%s\n" % one_line(event.progname))
            for i, argument in enumerate(event.argv):
                f.write("pbs.event().argv[%d]=%s\n" % (i, one_line(argument)))


def main(argv):
    options, (script,) = getopt.getopt(argv, "i:o:L:e:r:c:", ["hook"])
    options = dict(options)
    with open(options["-r"]) as f:
        defined = set(f.read().split())
    with open(options["-i"], "rb") as f:
        submission = f.read(1) == b"{"
    pbs._log = open(options["-L"], "a")
    pbs.hook_config_filename = options.get("-c")
    pbs._event = (event_of_json if submission else event_of_lines)(options["-i"], defined)
    with open(script) as f:
        code = compile(f.read(), script, "exec")
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit:
        pass
    except Exception as error:
        pbs.logmsg(pbs.LOG_ERROR, "%s: %s" % (type(error).__name__, error))
    write(options["-o"], pbs._event)


main(sys.argv[1:])
