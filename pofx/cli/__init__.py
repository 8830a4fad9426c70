"""The command line: one file = one verb. Errors are one sentence on standard error and an exit code."""

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pofx import discovery

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How data that a person names for a trained model are read."""

    on_error: Literal["stop", "skip"] = "stop"
    """What happens at a file or row that cannot be read."""


def _help() -> str:
    from pofx import __version__

    verbs = discovery.names("verbs")
    width = max(map(len, verbs))
    lines = [f"  {verb:<{width}}  {discovery.summary('verbs', verb)}" for verb in verbs]
    return "\n".join(
        [
            f"pofx {__version__}: learns P(X) or P(X|Y) from your data and draws new data from it.",
            "",
            "usage: pofx VERB ...   (pofx VERB --help tells more)",
            "",
            *lines,
            "",
            "For example: pofx train vae --data digits --minutes 1",
        ]
    )


_WORDINGS = (
    (r"invalid choice '(.*?)' for argument '(\S+)'\. Expected one of \((.*?),?\)", r"\2 cannot be '\1': choose one of \3"),
    (r"Missing value for argument '(\S+)'.*", r"\1 needs a value"),
    (r"Error parsing (\S+): .*?\bINT\b.*?from \[(.*?)\].*", r"\1 takes a whole number, not \2"),
    (r"Error parsing (\S+): .*?\bFLOAT\b.*?from \[(.*?)\].*", r"\1 takes a number, not \2"),
    (r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)", r"\1 takes a whole number, not \2"),
    (r"Error parsing (\S+): could not convert string to float: (.*)", r"\1 takes a number, not \2"),
    (r"Error parsing (\S+): Could not find valid parse for arguments: \[(.*)\]", r"\1 cannot be \2"),
    (r"Unrecognized options: (.*)", r"\1 is neither a flag nor a value of one"),
    (r"Missing from (pofx \S+): \S+ ([^.:]*).*", r"\1 needs an argument: \2"),
)
"""What the parser says, and what a person is told instead."""


def _plain(text: str, flags: Sequence[str]) -> str:
    """An error box of the parser as one sentence; `flags`: those that there are."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [re.sub(r"[╭╮╰╯│─━+|]+|-{4,}", " ", line).strip() for line in text.splitlines()]
    sentence = " ".join(" ".join(line for line in lines if line).split())
    sentence = re.split(r"\s+(?:For full helptext|Perhaps you meant|Similar arguments|Argument helptext)", sentence)[0]
    for pattern, wording in _WORDINGS:
        if match := re.search(pattern, sentence):
            return (
                match.expand(wording).replace("True', 'False", "true', 'false").replace(", 'None'", "").replace("'None', ", "").strip(" .")
            )
    # Our own configs word their errors, and name their own field; the parser's prefix names the group that it is in.
    sentence = re.sub(r"^(?:Value error|Parsing error)\s+", "", sentence)
    if match := re.match(r"Error parsing ([\w.-]+)(?: \w+)?: ((\S*).*)", sentence):
        group, sentence, field = match.groups()
        within = {f"--{field}", f"--{group}.{field}"} & set(flags)
        sentence = sentence.replace(field, max(within, key=len), 1) if within else sentence
    return sentence.strip(" .") or "the arguments cannot be read"


def _help_of(text: str) -> str:
    """The parser's help without what tells nothing: that a flag may be left out, which all may; a default of None that nothing explains."""
    # As long as before, so that what stands behind stays in its column.
    text = re.sub(r"\{None\}\|(?:\{(.*?)\}(?=\s)|(\S+))", lambda match: (match[1] or match[2]).ljust(len(match[0])), text)
    text = text.replace("--source STR", "--data STR  ")
    text = re.sub(r"\{None,(\S*)", lambda match: f"{{{match[1]}".ljust(len(match[0])), text)
    text = re.sub(r"(None:[^()]*)?\s*\(default:\s+None\)", lambda match: match[0] if match[1] else "", text)
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def _flags(cls: type, prefix: str = "--") -> list[tuple[str, Any]]:
    """Every flag of a nested dataclass, with its type."""
    import typing

    found = []
    for name, hint in typing.get_type_hints(cls).items():
        flag = prefix + name.replace("_", "-")
        if dataclasses.is_dataclass(hint):
            found += _flags(hint, f"{flag}.")  # type: ignore[arg-type]
        else:
            found.append((flag, hint))
    return found


def booleans(cls: type, arguments: Sequence[str]) -> list[str]:
    """The arguments with a bare flag of a true-or-false field as `--flag True`, and true and false in any case."""
    flags = {flag for flag, hint in _flags(cls) if hint is bool}
    given = []
    for i, argument in enumerate(arguments):
        value = arguments[i + 1].lower() if i + 1 < len(arguments) else ""
        given.append({"true": "True", "false": "False"}.get(argument.lower(), argument))
        if argument.replace("_", "-") in flags and value not in ("true", "false"):
            given.append("True")
    return given


def parse(cls: type[T], arguments: Sequence[str], *, verb: str, default: T | None = None) -> T:
    """The dataclass that the arguments give. Raises `UsageError` with one sentence; prints help for --help.

    `--data SOURCE` fills the field `source`, since `--data.FIELD` are the fields of the options of the data.
    """
    import tyro

    from pofx.core import UsageError

    def name(argument: str) -> str:
        head, equals, value = argument.partition("=")
        return f"--source{equals}{value}" if head == "--data" else argument

    arguments = [name(argument) for argument in booleans(cls, arguments)]
    known = [*(flag for flag, _ in _flags(cls)), "--help"]
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if re.match(r"--[a-z]", flag) and flag not in known:
            shown = ["--data" if other == "--source" else other for other in known]
            raise UsageError(discovery.unknown("flag", flag, shown))
    config = (tyro.conf.FlagConversionOff, tyro.conf.OmitSubcommandPrefixes)
    printed, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            return tyro.cli(cls, args=arguments, default=default, prog=f"pofx {verb}", config=config)  # type: ignore[call-overload, no-any-return]
    except SystemExit as stop:
        if stop.code in (0, None):
            print(_help_of(printed.getvalue()), end="")
            raise
        raise UsageError(_plain(errors.getvalue() or printed.getvalue(), known).replace("--source", "--data")) from None


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        from pofx import __version__

        print(__version__)
        return 0
    verb = arguments[0]
    if verb not in discovery.names("verbs"):
        print(f"pofx: {discovery.unknown('verb', verb, discovery.names('verbs'))}", file=sys.stderr)
        return 2
    module: Any = discovery.load("verbs", verb)
    if hasattr(module, "main"):
        return int(module.main(arguments[1:]) or 0)
    return int(module.run(parse(module.Options, arguments[1:], verb=verb)) or 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 2 cannot be done as asked, 1 failed, 130 or 143 stopped."""
    # Not list(...): importing the verb `list` gives this package an attribute of that name.
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    try:
        return _run(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt as stop:
        print(f"pofx: {stop or 'stopped'}", file=sys.stderr)
        return int(getattr(stop, "code", 130))
    except Exception as error:
        return _say(error)


def _say(error: Exception) -> int:
    """One sentence for what a person can mend; for the rest, a traceback to report."""
    from pofx.core import TrainingError, UsageError

    if isinstance(error, (UsageError, TrainingError)):
        print(f"pofx: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    import traceback

    traceback.print_exc()
    print(f"pofx: unexpected {type(error).__name__}: {error}; this is a defect of pofx", file=sys.stderr)
    return 1
