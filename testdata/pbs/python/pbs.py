"""A stand-in for OpenPBS's module pbs, for what hooks of Berth use of it. Its
behaviour was taken from a real server: accept() and reject() raise SystemExit,
an event lets a hook see and change certain things only, a resource that is not
defined raises, values of variables are escaped."""
import sys

QUEUEJOB, MODIFYJOB = 0x1, 0x2
EXECJOB_BEGIN, EXECJOB_PROLOGUE, EXECJOB_EPILOGUE, EXECJOB_END = 0x80, 0x100, 0x200, 0x400
EXECJOB_LAUNCH, EXECJOB_ABORT, EXECHOST_STARTUP = 0x1000, 0x8000, 0x10000

LOG_ERROR, LOG_WARNING, LOG_DEBUG = 0x1, 0x3, 0x4

NAMES = {
    "queuejob": QUEUEJOB, "modifyjob": MODIFYJOB, "execjob_begin": EXECJOB_BEGIN,
    "execjob_prologue": EXECJOB_PROLOGUE, "execjob_launch": EXECJOB_LAUNCH, "execjob_epilogue": EXECJOB_EPILOGUE,
    "execjob_end": EXECJOB_END, "execjob_abort": EXECJOB_ABORT, "exechost_startup": EXECHOST_STARTUP,
}

hook_config_filename = None
_event = None
_log = None


class UnsetResourceNameError(Exception):
    pass


class EventIncompatibleError(Exception):
    pass


def logmsg(level, text):
    _log.write("%d;%s\n" % (level, text))
    _log.flush()


def event():
    return _event


class Resources(object):
    """job.Resource_List: every defined resource, None where it is not set."""

    def __init__(self, defined, values, writable):
        self._defined, self._values, self._writable, self.changed = defined, values, writable, {}

    def __getitem__(self, name):
        if name not in self._defined:
            raise UnsetResourceNameError(name)
        return self._values.get(name)

    def __setitem__(self, name, value):
        if not self._writable:
            raise EventIncompatibleError("Resource_List is read-only in this event")
        if name not in self._defined:
            raise UnsetResourceNameError(name)
        self._values[name] = self.changed[name] = value

    def __str__(self):
        return ",".join("%s=%s" % item for item in sorted(self._values.items()))


class Variables(dict):
    def __str__(self):
        return ",".join("%s=%s" % item for item in sorted(self.items()))


class Job(object):
    def __init__(self, attributes, resources, variables):
        self.__dict__.update(attributes)
        self.Resource_List, self.Variable_List = resources, variables


class Event(object):
    """argv, progname and env exist in execjob_launch alone."""

    def __init__(self, type, job, launch):
        self.type, self.job, self.result, self.message = type, job, None, ""
        if launch is not None:
            self.progname, self.argv, self.env = launch

    def accept(self):
        self.result = "accept"
        sys.exit(0)

    def reject(self, message=""):
        self.result, self.message = "reject", message
        sys.exit(0)
