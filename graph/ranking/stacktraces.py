"""Stack traces: which exception, thrown from where. What two of them have in common, whatever their messages say."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_READ = 16_000  # characters from either end of a message: twice what collectors keep of one
MAX_LINE = 300  # characters of a line that are searched for an exception's name
MAX_FRAMES = 3  # who threw, who called it, and who called that: enough to tell two paths apart
_FRAME = re.compile(
    r"^[ \t]+at (?P<call>\S.*)$|^[ \t]+File (?P<file>\"[^\"\n]+\", line \d+(?:, in .+)?)$", re.MULTILINE
)
_FOREIGN = re.compile(
    # frames of language runtimes, servers and libraries: the same whatever the application does
    r"^(?:java|javax|jakarta|jdk|sun|com\.sun|kotlin|kotlinx|scala|groovy|org\.(?:springframework|apache|hibernate"
    r"|eclipse\.jetty|jboss)|io\.(?:netty|grpc|opentelemetry|vertx)|reactor|rx|com\.zaxxer|System|Microsoft)\."
    r"|node_modules|node:internal|\(internal/|site-packages|dist-packages|/lib(?:64)?/python|<frozen "
    # generated at run time, under changing names
    r"|\$\$|\$Proxy|Generated(?:Method|Constructor)Accessor|Native Method"
)
_CAUSE = "Caused by: "
_TRACEBACK = "Traceback (most recent call last)"
_TYPE = re.compile(r"(?:[A-Za-z_$][\w$]*\.)*[A-Z_a-z$][\w$]*")
_NAMED = re.compile(r"(?<![\w$.])(?:[A-Za-z_$][\w$]*\.)*[A-Z][\w$]*(?:Exception|Error|Throwable|Failure|Fault)\b")


@dataclass(frozen=True, slots=True)
class StackTrace:
    """The innermost exception of a trace: ``error`` its type, ``frames`` innermost first, ``head`` its own line."""

    error: str
    frames: tuple[str, ...]
    head: str

    @property
    def name(self) -> str:
        """Type and frames with their line numbers: equal for all traces from one place."""
        return " < ".join((f"{self.error} at {self.frames[0]}", *self.frames[1:]))


def stack_trace(message: str) -> StackTrace | None:
    """The stack trace a message holds: of Java and its kin, .NET and JavaScript ("at …"), or of Python."""
    if len(message) > 2 * MAX_READ:
        message = f"{message[:MAX_READ]}\n{message[-MAX_READ:]}"
    if _TRACEBACK in message:
        return _python(message[message.rindex(_TRACEBACK) :])
    return _caused(message) if "\n" in message else None


def _caused(message: str) -> StackTrace | None:
    """The last cause is the first one in time; frames are its own, or else those of what it caused."""
    sections = message.split(_CAUSE)
    found: list[tuple[str, list[str]]] = []
    for section in sections:
        first = _FRAME.search(section)
        head = section[: first.start() if first else None].strip()
        found.append((head, [m["call"] for m in _FRAME.finditer(section) if m["call"]]))
    head, _ = found[-1]
    frames = [frame for _, frames in reversed(found) for frame in frames]
    if not frames:
        return None
    line = head.partition("\n")[0][:MAX_LINE] if len(sections) > 1 else _throwing_line(head)
    named = _NAMED.search(line) if len(sections) == 1 else None
    match = named or _TYPE.match(line.strip())
    return StackTrace(match.group() if match else "", _innermost(frames), line.strip())


def _throwing_line(head: str) -> str:
    """Of the text before the first frame the last line that names an exception: a logger's own words come first."""
    lines = [line[:MAX_LINE] for line in head.splitlines()] or [""]
    return next((line for line in reversed(lines) if _NAMED.search(line)), lines[-1])


def _python(traceback: str) -> StackTrace | None:
    frames = [m for m in _FRAME.finditer(traceback) if m["file"]]
    if not frames:
        return None
    after = traceback[frames[-1].end() :].splitlines()
    line = next((text for text in after if text[:1].strip()), "")  # source code is indented, the type is not
    match = _TYPE.match(line[:MAX_LINE])
    return StackTrace(match.group() if match else "", _innermost([m["file"] for m in reversed(frames)]), line)


def _innermost(frames: Sequence[str]) -> tuple[str, ...]:
    """The first few of the application's own frames, or of all where there is none."""
    own = [frame for frame in frames if not _FOREIGN.search(frame)]
    return tuple(frame.strip() for frame in (own or frames)[:MAX_FRAMES])
